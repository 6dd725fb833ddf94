//! `oncelet exec`: runs a program once in a container, or gives back what came of it when it was run there before.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kube::Api;
use oncelet_api::{Container, ContainerExecSpec, EnvVar, WaitForPort, literal};
use oncelet_core::Fingerprint;
use serde_json::json;

use crate::args::Exec;
use crate::ask::Request;
use crate::follow::Follow;
use crate::objects::Objects;
use crate::stdin::{Given, Input, refuse};

/// Asks for a run of the program, follows it to its end, and ends as it did.
pub(crate) async fn exec(args: Exec) -> Result<ExitCode> {
    // Before anything is asked for.
    let stdin = match Given::take(args.interactive, args.tty).await {
        Ok(stdin) => stdin,
        Err(error) => return Ok(refuse(&error)),
    };
    let objects = Objects::new(args.cluster).await?;
    let ours = Api::<Container>::namespaced(objects.client.clone(), &objects.namespace);
    let is_ours = ours.get_opt(&args.container).await.context("the API server does not answer")?.is_some();
    let target = Target { object: is_ours, text: args.container };
    let mut spec = declare(target, args.command, args.env, args.workdir, args.user)?;
    spec.stdin = stdin.input().map(Input::declared);
    let name = match args.name {
        Some(name) => name,
        // The same program in the same container is the same run.
        None => format!("exec-{}", &Fingerprint::of_bytes(json!(spec).to_string().as_bytes()).to_string()[..12]),
    };
    // When it is started is no part of what is run.
    spec.wait_for_port = args.wait_for_port.map(|port| WaitForPort { port: port.into(), ..WaitForPort::default() });
    let request = Request::new(&objects, name, spec);
    request.make().await?;
    let follow = Follow { objects: &objects, name: request.name(), after: None, gives_up: true, input: stdin.input() };
    // It holds the state of a watch, of logs and of an upload.
    stdin.beside(&request, Box::pin(follow.run())).await
}

/// The container as it was typed.
struct Target {
    /// Whether it is the name of a `Container` object.
    object: bool,
    text: String,
}

/// The spec of the object that a command line asks for: the one place where it is made.
fn declare(
    target: Target,
    command: Vec<String>,
    env: Vec<String>,
    working_directory: Option<String>,
    user: Option<String>,
) -> Result<ContainerExecSpec> {
    let env = env.into_iter().map(|pair| match pair.split_once('=') {
        Some((name, value)) => Ok(EnvVar { name: name.to_owned(), value: Some(literal(value)), value_from: None }),
        None => bail!("--env takes NAME=VALUE, not {pair:?}"),
    });
    let mut command = command.into_iter();
    Ok(ContainerExecSpec {
        container_name: target.object.then(|| target.text.clone()),
        engine_container: (!target.object).then_some(target.text),
        // The command itself is never substituted into.
        command: command.next().unwrap_or_default(),
        args: command.map(|arg| literal(&arg)).collect(),
        env: env.collect::<Result<_>>()?,
        working_directory,
        user,
        ..ContainerExecSpec::default()
    })
}

#[cfg(test)]
mod tests {
    use oncelet_api::ContainerExec;
    use oncelet_controller::program;
    use oncelet_core::{Sources, resolve};

    use super::*;

    /// What the program gets of an argument and of the value of a variable.
    fn arrived(text: &str) -> (String, String) {
        let target = Target { object: false, text: "db".into() };
        // Variables that a reference could mean.
        let env = vec!["X=other".to_owned(), format!("VALUE={text}")];
        let spec = declare(target, vec!["sh".into(), text.into()], env, None, None).unwrap();
        let resolved = resolve(&program(&ContainerExec::new("x", spec)), &Sources::default()).unwrap();
        let value = resolved.env.into_iter().find(|(name, _)| name == "VALUE").unwrap().1;
        (resolved.args[0].clone(), value)
    }

    /// All texts of up to six of the characters that substitution knows, and one that it does not.
    #[test]
    fn everything_arrives_as_written() {
        let mut texts = vec![String::new()];
        for length in 0..6 {
            let longest: Vec<_> = texts.iter().filter(|text| text.chars().count() == length).cloned().collect();
            texts.extend(longest.iter().flat_map(|text| ['$', '(', ')', 'X', 'ß'].map(|next| format!("{text}{next}"))));
        }
        texts.extend(
            ["DO $$ BEGIN END $$;", "pa$$word", "$(X)", "$$(X)", "$$$(X)$", "{{ portFor }}"].map(str::to_owned),
        );
        for text in texts {
            assert_eq!(arrived(&text), (text.clone(), text));
        }
    }

    #[test]
    fn the_command_is_no_template() {
        let target = Target { object: false, text: "db".into() };
        let spec = declare(target, vec!["/bin/$$x$(Y)".into()], vec![], None, None).unwrap();
        assert_eq!(spec.command, "/bin/$$x$(Y)");
    }
}
