//! `oncelet credentials rotate`.

use anyhow::{Context, Result, bail};

use crate::args::Rotate;
use crate::clock::now;
use crate::paths::Paths;

pub(crate) fn rotate(args: Rotate) -> Result<()> {
    let paths = Paths::new(args.data)?;
    let kubeconfig = match args.kubeconfig {
        Some(path) => std::path::absolute(path)?,
        None => paths.kubeconfig(),
    };
    let Some(rotated) = oncelet_apiserver::rotate(&paths.apiserver(), &kubeconfig, now())? else {
        bail!("oncelet up has not run with {}: there are no credentials to rotate", paths.data_dir.display());
    };
    println!(
        "The API server has a new token, a new client certificate and a new authority. The old ones are refused from now on."
    );
    let file = kubeconfig.display();
    if rotated.kubeconfig.with_context(|| format!("{file} does not have the new ones"))? {
        println!("The kubeconfig {file} has the new ones; copies of it do not.");
    } else {
        println!(
            "The kubeconfig {file} is not one of this API server, and stays as it is. An oncelet up that runs writes its own \
             anew, as the next one does."
        );
    }
    Ok(())
}
