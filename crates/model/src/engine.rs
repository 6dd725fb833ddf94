//! The engine, and whatever else happens around the daemons.

use crate::world::{Code, DaemonNo, Exec, ExecNo, Phase, Program, Stream, World};

/// What the engine does with a start request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Starts the program, where the exec is fresh; else says that it was started before, or is not known.
    Start,
    /// Cannot start the program; the exec is spent.
    Fail,
    /// Refuses by an error: the container is paused, say. The exec stays fresh.
    Refuse,
    /// Refuses by a text on the stream. The exec stays fresh.
    Explain,
}

impl World {
    /// The engine gets the request of daemon `me`. `heard`: its answer arrives.
    pub(crate) fn answer(&mut self, me: DaemonNo, answer: Answer, heard: bool) {
        let Phase::AwaitAnswer { exec, earlier } = self.daemons[me].phase else { return };
        let fresh = matches!(self.exec(exec), Exec::Created { .. });
        let stream = match answer {
            // An engine starts an exec at most once.
            _ if !fresh => None,
            Answer::Start => {
                self.start(exec);
                Some(Stream::Program)
            }
            Answer::Fail => {
                self.set_exec(exec, Exec::Spent);
                Some(Stream::Failure)
            }
            Answer::Explain => Some(Stream::Refusal),
            Answer::Refuse => None,
        };
        self.daemons[me].phase = match stream.filter(|_| heard) {
            Some(stream) => Phase::RecordStart { exec, earlier, stream },
            None => Phase::AskAfterStart { exec, earlier, refused: fresh && heard },
        };
    }

    /// The engine gets a request that nobody waits for.
    pub(crate) fn answer_stray(&mut self, exec: ExecNo, answer: Answer) {
        match answer {
            Answer::Start => self.start(exec),
            Answer::Fail => self.set_exec(exec, Exec::Spent),
            Answer::Refuse | Answer::Explain => self.set_exec(exec, Exec::Created { stray: false }),
        }
    }

    /// Nobody waits for the request of `me` any more, and it may still reach the engine.
    pub(crate) fn leave_request(&mut self, me: DaemonNo) {
        if let Phase::AwaitAnswer { exec, .. } = self.daemons[me].phase
            && matches!(self.exec(exec), Exec::Created { .. })
        {
            // One request that may come at any time or never does all that two could do.
            self.set_exec(exec, Exec::Created { stray: true });
        }
    }

    fn start(&mut self, exec: ExecNo) {
        self.set_exec(exec, Exec::Started);
        self.starts = (self.starts + 1).min(2);
        if self.program == Program::NotStarted {
            self.program = Program::Runs;
        }
    }

    pub(crate) fn program_ends(&mut self, code: Code) {
        self.program = Program::Exited(code);
    }

    /// Kills the program. The execs go too, started or not.
    pub(crate) fn container_restarts(&mut self) {
        if self.program == Program::Runs {
            self.program = Program::Killed;
        }
        self.engine_restarts();
    }

    /// The container lives on, the execs are forgotten, the streams break.
    pub(crate) fn engine_restarts(&mut self) {
        self.execs.fill(Exec::Gone);
    }
}
