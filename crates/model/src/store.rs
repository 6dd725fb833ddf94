//! The changes of `oncelet-store`, on the one row.
//!
//! Each is one transaction, so one step.

use oncelet_core::RunEvent;

use crate::code::{self, Code};
use crate::world::{At, DaemonNo, Disk, End, Owner, Phase, Queued, Row, Seen, World};

/// `Advance`, and the error that the code never expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moved {
    Done,
    /// Somebody has taken the run over.
    Lost,
    /// `StoreError::Illegal`.
    Illegal,
}

impl World {
    /// `MakeClaim`: inserts the row, or claims a failed try again. False where somebody holds the key.
    pub(crate) fn claim(&mut self, code: &Code, me: DaemonNo, synced: bool) -> bool {
        let attempt = match self.row {
            None => 1,
            Some(row) if code.may_be_claimed_again(row) => row.attempt + 1,
            Some(_) => return false,
        };
        self.commit(Some(Row { at: At::Claimed, attempt, owner: Owner::Daemon(me) }), synced);
        self.outdate();
        true
    }

    /// `Move`: one event, if the lease is still good.
    pub(crate) fn advance(&mut self, me: DaemonNo, event: RunEvent, synced: bool) -> Moved {
        let Some(row) = self.row.filter(|row| row.owner == Owner::Daemon(me)) else { return Moved::Lost };
        let Some(at) = code::next(row.at, event) else { return Moved::Illegal };
        let owner = if let At::Ended(_) = at { Owner::Nobody } else { row.owner };
        self.commit(Some(Row { at, owner, ..row }), synced);
        if let At::Ended(end) = at
            && end != End::FailedToStart
        {
            self.ended = Some(end);
        }
        Moved::Done
    }

    /// The look of `Store::take_over` at the row before its change.
    pub(crate) fn is_as_seen(&self, seen: Seen, me: DaemonNo, lease_expired: bool) -> bool {
        self.row.is_some_and(|row| {
            let takeable = match row.owner {
                Owner::Nobody => false,
                Owner::Daemon(owner) => owner == me || lease_expired,
                Owner::Gone => true,
            };
            row.at == seen.at && row.attempt == seen.attempt && takeable
        })
    }

    /// `TakeOver`: makes an open run ours. False where it is over, or was acquired since it was seen.
    pub(crate) fn take_over(&mut self, me: DaemonNo, fresh: bool, synced: bool) -> bool {
        let Some(row) = self.row.filter(|row| fresh && row.owner != Owner::Nobody) else { return false };
        self.commit(Some(Row { owner: Owner::Daemon(me), ..row }), synced);
        self.outdate();
        true
    }

    /// `GiveBack`: undoes a claim. Nothing happens where the lease is lost or something may have started under it.
    pub(crate) fn give_back(&mut self, me: DaemonNo, synced: bool) {
        let Some(row) = self.row.filter(|row| row.owner == Owner::Daemon(me) && row.at == At::Claimed) else { return };
        if row.attempt == 1 {
            self.acknowledged = false;
            self.commit(None, synced);
            // The number of a run is never given again, so who has seen the row will not find it.
            self.outdate();
        } else {
            let failed = At::Ended(End::FailedToStart);
            self.commit(Some(Row { at: failed, attempt: row.attempt - 1, owner: Owner::Nobody }), synced);
        }
    }

    /// Makes the change that a dropped task left in the queue; the writer makes it before any later one.
    pub(crate) fn flush(&mut self, code: &Code, me: DaemonNo, synced: bool) {
        match self.daemons[me].queued.take() {
            None => {}
            Some(Queued::Claim) => drop(self.claim(code, me, synced)),
            // Nobody reads the answer. The lease cannot have been acquired anew by `me`: that would be a later change.
            Some(Queued::ExecCreated(exec)) => drop(self.advance(me, code::exec_created(exec), synced)),
            Some(Queued::TakeOver { fresh }) => drop(self.take_over(me, fresh, synced)),
            Some(Queued::Release) => self.give_back(me, synced),
        }
    }

    /// The daemon's lock is freed by the kernel.
    pub(crate) fn disown(&mut self, me: DaemonNo) {
        for row in self.row.iter_mut().chain(self.disk.behind_mut()) {
            if row.owner == Owner::Daemon(me) {
                row.owner = Owner::Gone;
            }
        }
    }

    fn commit(&mut self, row: Option<Row>, synced: bool) {
        let before = std::mem::replace(&mut self.row, row);
        if synced {
            self.disk = Disk::Synced;
        } else if self.disk == Disk::Synced {
            self.disk = Disk::Behind(before);
        }
    }

    /// The epoch has changed: who has seen an earlier one will find nothing.
    fn outdate(&mut self) {
        for daemon in &mut self.daemons {
            if let Phase::TakeOver { fresh, .. } = &mut daemon.phase {
                *fresh = false;
            }
            if let Some(Queued::TakeOver { fresh }) = &mut daemon.queued {
                *fresh = false;
            }
        }
    }
}
