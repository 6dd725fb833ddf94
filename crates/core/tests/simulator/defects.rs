//! Defects that can be planted.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The program is started whether or not somebody has claimed the run in the container.
    NoGate,
    /// A run behind a closed gate is given up and launched afresh, as if the gate were open.
    WithdrawBehindTheGate,
    /// The engine's exit code is taken for the program's.
    BelievedExitCode,
    /// A commit that reported a failure is taken for one that was not made: the claim is made under a new key.
    FailedCommitMeansNothing,
    /// A recovered attached run gets another exec.
    NewExecInRecovery,
}

impl Defect {
    pub(crate) const ALL: [Self; 5] = [
        Self::NoGate,
        Self::WithdrawBehindTheGate,
        Self::BelievedExitCode,
        Self::FailedCommitMeansNothing,
        Self::NewExecInRecovery,
    ];
}
