//! Which store it is.

use jiff::Timestamp;
use oncelet_store::Store;

/// Containers are labelled with it: were it another one after a restart, nobody's would be ours any more.
#[tokio::test]
async fn a_store_has_one_uuid_for_life_and_no_two_have_the_same() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = async |dir: &tempfile::TempDir| {
        let store = Store::open(&dir.path().join("store"), Timestamp::UNIX_EPOCH).await.unwrap();
        let uuid = store.uuid();
        let reader = Store::open_reader(&dir.path().join("store")).await.unwrap();
        assert_eq!(reader.uuid(), uuid, "readers know it, too");
        store.close().await;
        uuid
    };
    let first = open(&one).await;
    assert_eq!(open(&one).await, first);
    assert_ne!(open(&other).await, first);
}
