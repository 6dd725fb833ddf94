//! What a daemon reads of a supervisor, and a supervisor of a daemon: any bytes, cut anywhere.
#![allow(clippy::unwrap_used, reason = "this is test code")]

use oncelet_shim::frame::{Decoder, Frame, FrameError, Hello, LONGEST, Message, head};
use oncelet_shim::{End, Exit, Place, PortState, PortTry, StartFailure, Stream, Words, Written};
use proptest::prelude::*;

fn frame() -> impl Strategy<Value = Frame> {
    let stream = prop::sample::select(vec![Stream::Stdout, Stream::Stderr]);
    let message = || any::<String>().prop_map(|message| Message { message });
    prop_oneof![
        (stream, prop::collection::vec(any::<u8>(), 0..2000)).prop_map(|(stream, bytes)| Frame::Output(stream, bytes)),
        message().prop_map(Frame::Unusable),
        message().prop_map(Frame::Abandoned),
        message().prop_map(Frame::StdinIncomplete),
        (any::<[u32; 3]>(), any::<Option<String>>()).prop_map(|([version, uid, gid], problem)| Frame::Hello(Hello {
            version,
            uid,
            gid,
            problem
        })),
        (any::<i32>(), any::<String>())
            .prop_map(|(errno, message)| Frame::FailedToStart(StartFailure { errno, message })),
        (any::<u64>(), any::<u64>(), "[0-9a-f]{0,20}", any::<i32>()).prop_map(|(bytes, kept, tail, code)| {
            let stdout = Written { bytes, kept, held_open: false, tail };
            let (stderr, end) = (Written::default(), End::Code(code));
            Frame::Exited(Exit { started_us: 0, finished_us: -1, elapsed_us: 1, end, stdout, stderr, stopped: None })
        }),
        prop::collection::vec(("[0-9.]{0,9}", any::<String>()), 0..4).prop_map(|tries| {
            let tries = tries.into_iter().map(|(address, problem)| PortTry { address, problem }).collect();
            Frame::Port(PortState::Closed { tries, loopback_only: true })
        }),
        Just(Frame::Done),
    ]
}

/// Frames, and what somebody may have made of them: bytes changed, left out and put in between.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let frames =
        prop::collection::vec(frame(), 0..8).prop_map(|frames| frames.iter().flat_map(Frame::encode).collect());
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..6);
    let mutated = (frames, changes).prop_map(|(mut bytes, changes): (Vec<u8>, Vec<_>)| {
        for (at, byte, how) in changes {
            let at = at.index(bytes.len() + 1);
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    });
    prop_oneof![3 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..600)]
}

/// What comes out of `bytes`, given in pieces of these sizes, and how it ends.
fn decoded(bytes: &[u8], sizes: &[usize]) -> (Vec<Frame>, bool) {
    let (mut decoder, mut frames, mut rest) = (Decoder::default(), Vec::new(), bytes);
    for size in sizes.iter().copied().cycle() {
        if rest.is_empty() {
            return (frames, decoder.is_in_the_middle());
        }
        let (piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(decoder.held() < LONGEST + 5, "{} bytes are held", decoder.held());
    }
    unreachable!("there is at least one size")
}

proptest! {
    #![proptest_config(oncelet_fuzz::cases("fuzz"))]

    #[test]
    fn what_comes_out_does_not_depend_on_the_cuts(bytes in bytes(), sizes in prop::collection::vec(1..300_usize, 1..9)) {
        prop_assert_eq!(decoded(&bytes, &sizes), decoded(&bytes, &[bytes.len().max(1)]));
    }

    #[test]
    fn whole_frames_come_back(frames in prop::collection::vec(frame(), 0..8), size in 1..100_usize) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        prop_assert_eq!(decoded(&bytes, &[size]), (frames, false));
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_comes(kind: u8, length in LONGEST + 1..u32::MAX as usize) {
        let mut decoder = Decoder::default();
        decoder.push(&head(kind, length));
        prop_assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong(told)) if told == length));
    }

    #[test]
    fn words_do_not_depend_on_the_cuts(said in "(ack|stored|[0-9]{1,30}| |\n|x){0,20}", size in 1..20_usize) {
        let mut cut = Words::default();
        let found: Vec<_> = said.as_bytes().chunks(size).flat_map(|piece| cut.push(piece)).collect();
        prop_assert_eq!(found, Words::default().push(said.as_bytes()));
    }

    /// Two names of one segment would be told twice.
    #[test]
    fn a_segment_has_one_name(name in "(stdout|stderr|std|\\.)?\\.?[+0-9 ]{0,24}") {
        if let Some((stream, offset)) = Place::parse_segment(&name) {
            let path = Place::new("c", "r").segment(stream, offset);
            prop_assert_eq!(path.rsplit('/').next(), Some(name.as_str()));
        }
    }
}

/// A decoder that moved what is left after each frame would be at this for hours.
#[test]
fn many_frames_in_one_piece_cost_no_more_than_their_bytes() {
    const COUNT: usize = 2_000_000;
    let mut decoder = Decoder::default();
    decoder.push(&Frame::Done.encode().repeat(COUNT));
    assert_eq!(std::iter::from_fn(|| decoder.next_frame().unwrap()).count(), COUNT);
}
