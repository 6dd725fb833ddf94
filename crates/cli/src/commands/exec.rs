//! `oncelet exec`: runs a program once in a container, or gives back what came of it when it was run there before.

use std::process::ExitCode;

use anyhow::{Result, bail};
use oncelet_api::{ContainerExec, ContainerExecSpec, EnvVar, WaitForPort, literal};
use oncelet_controller::program;
use oncelet_core::Fingerprint;

use crate::args::Exec;
use crate::ask::Request;
use crate::follow::Follow;
use crate::objects::Objects;
use crate::progress::Line;
use crate::signals::Signals;
use crate::stdin::{Given, Input, refuse};
use crate::target::{Finder, Target};

/// Asks for a run of the program, follows it to its end, and ends as it did.
pub(crate) async fn exec(args: Exec) -> Result<ExitCode> {
    // Before anything is asked for.
    let stdin = match Given::take(args.interactive, args.tty).await {
        Ok(stdin) => stdin,
        Err(error) => return Ok(refuse(&error)),
    };
    let objects = Objects::new(args.cluster).await?;
    let finder = Finder::new(&objects)?;
    let target = finder.find(&objects, &args.container).await?;
    let mut spec = declare(&target, args.command, args.env, args.workdir, args.user)?;
    spec.stdin = stdin.input().map(Input::declared);
    let (name, mut spec) = named(args.name, &target, spec);
    // When it is started is no part of what is run.
    spec.log_limit_bytes = args.log_limit;
    spec.wait_for_port = args.wait_for_port.map(|port| WaitForPort { port: port.into(), ..WaitForPort::default() });
    // From here on there may be something to take back.
    let signals = Signals::listen()?;
    let line = Line::begin();
    let request = Request::new(&objects, finder, target, name, spec);
    let made = request.make(&line).await?;
    let follow = Follow::request(&objects, &request, &made, signals, &line).within(args.timeout, true);
    // It holds the state of a watch, of logs and of an upload.
    stdin.beside(&request, Box::pin(follow.sending(stdin.input()).run())).await
}

/// The name of the object. Without one that was asked for, the program and the container decide it, and what is remembered of
/// the run: the same program in the same container is one run.
fn named(asked: Option<String>, target: &Target, mut spec: ContainerExecSpec) -> (String, ContainerExecSpec) {
    if let Some(name) = asked {
        return (name, spec);
    }
    let fingerprint = program(&ContainerExec::new("exec", spec.clone())).fingerprint();
    let both = Fingerprint::of_bytes(format!("{fingerprint} {}", target.identity()).as_bytes());
    // What people read in lists of runs; 128 bits are enough to tell programs apart.
    spec.run_key = Some(format!("exec/{}", &fingerprint.as_str()[..32]));
    (format!("exec-{}", &both.as_str()[..12]), spec)
}

/// The spec of the object that a command line asks for: the one place where it is made.
fn declare(
    target: &Target,
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
        container_name: target.is_object.then(|| target.text.clone()),
        engine_container: (!target.is_object).then(|| target.text.clone()),
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
    use oncelet_core::{Sources, resolve};

    use super::*;

    fn target(text: &str, id: Option<&str>) -> Target {
        Target { text: text.into(), is_object: false, id: id.map(Into::into) }
    }

    /// What the program gets of an argument and of the value of a variable.
    fn arrived(text: &str) -> (String, String) {
        // Variables that a reference could mean.
        let env = vec!["X=other".to_owned(), format!("VALUE={text}")];
        let spec = declare(&target("db", None), vec!["sh".into(), text.into()], env, None, None).unwrap();
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
        let spec = declare(&target("db", None), vec!["/bin/$$x$(Y)".into()], vec![], None, None).unwrap();
        assert_eq!(spec.command, "/bin/$$x$(Y)");
    }

    #[test]
    fn one_program_in_one_container_is_one_object_and_one_run_however_it_is_spelled() {
        let asked = |text: &str, id: &str, command: &str| {
            let target = target(text, Some(id));
            let spec = declare(&target, vec![command.into()], vec![], None, None).unwrap();
            let (name, spec) = named(None, &target, spec);
            (name, spec.run_key)
        };
        let (name, key) = asked("db", "c0ffee", "/bin/true");
        assert_eq!(asked("c0f", "c0ffee", "/bin/true"), (name.clone(), key.clone()));
        // In another container it is another object, and the run is another one by its container.
        let (elsewhere, same_key) = asked("db", "decaf", "/bin/true");
        assert!(elsewhere != name && same_key == key);
        assert_ne!(asked("db", "c0ffee", "/bin/false").1, key);
    }

    #[test]
    fn a_name_that_is_asked_for_decides_alone() {
        let target = target("db", Some("c0ffee"));
        let spec = declare(&target, vec!["/bin/true".into()], vec![], None, None).unwrap();
        let (name, spec) = named(Some("mine".into()), &target, spec);
        assert_eq!((name.as_str(), spec.run_key), ("mine", None));
    }
}
