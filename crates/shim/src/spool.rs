//! The program's output on the container's disk, until it is safe elsewhere.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::time::{Duration, Instant};

use oncelet_shim::{LONGEST_SEGMENT, Place, Stream};

use crate::{disk, home, limits};

/// How many entries of the spool are looked at: the program may have put others there.
const MOST: usize = 65_536;
/// Shorter segments are not worth a file.
const SMALLEST: u64 = 4096;
/// After how long it is looked again whether there is room.
const RETRY: Duration = Duration::from_millis(100);

/// Both streams of a run, as its supervisor writes them.
///
/// # Guarantees
/// - It takes no more than half of the room that there is with what it holds already.
/// - No file becomes longer than `RLIMIT_FSIZE` allows: to try would kill this process.
pub(crate) struct Spool {
    place: Place,
    largest: u64,
    segments: [Segments; 2],
    /// Until when there is no room.
    full_until: Option<Instant>,
    /// How many segments were removed so far.
    removed: u64,
}

#[derive(Default)]
struct Segments {
    all: VecDeque<Segment>,
    /// The last one, and how many bytes it may still take.
    open: Option<(File, u64)>,
}

struct Segment {
    begin: u64,
    length: u64,
}

impl Spool {
    /// Makes an empty one.
    pub(crate) fn make(place: &Place) -> io::Result<Self> {
        home::clear(&place.spool())?;
        DirBuilder::new().mode(0o700).create(place.spool())?;
        let largest = limits::largest_file().unwrap_or(u64::MAX).min(LONGEST_SEGMENT);
        Ok(Self { place: place.clone(), largest, segments: Default::default(), full_until: None, removed: 0 })
    }

    /// Writes what comes at `offset` of a stream, where everything before it is written or given up. Gives back how much of it is
    /// on the disk now: less where there is no room.
    pub(crate) fn write(&mut self, stream: Stream, offset: u64, bytes: &[u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let begin = offset + done as u64;
            if self.segments[stream as usize].open.is_none() && !self.begin_segment(stream, begin) {
                break;
            }
            let Segments { all, open } = &mut self.segments[stream as usize];
            let (Some(segment), Some((file, room))) = (all.back_mut(), open.as_mut()) else { break };
            let most = usize::try_from(*room).unwrap_or(usize::MAX).min(bytes.len() - done);
            match file.write(&bytes[done..done + most]) {
                Ok(written) if written > 0 => {
                    done += written;
                    segment.length += written as u64;
                    *room -= written as u64;
                    if *room == 0 {
                        *open = None;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.close(stream);
                    self.full_until = Some(Instant::now() + RETRY);
                    break;
                }
            }
        }
        done
    }

    /// Whether there was no room when it was tried last.
    pub(crate) fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    /// How many segments were removed so far, by whomever.
    pub(crate) fn removed(&self) -> u64 {
        self.removed
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segments| segments.all.is_empty())
    }

    /// Ends the segments that are written: no more comes.
    pub(crate) fn finish(&mut self) {
        for stream in Stream::ALL {
            self.close(stream);
        }
    }

    fn close(&mut self, stream: Stream) {
        let segments = &mut self.segments[stream as usize];
        if segments.open.take().is_some() && segments.all.back().is_some_and(|segment| segment.length == 0) {
            let empty = segments.all.pop_back();
            let _ = empty.map(|segment| fs::remove_file(self.place.segment(stream, segment.begin)));
        }
    }

    /// Begins another segment. False where there is no room.
    fn begin_segment(&mut self, stream: Stream, begin: u64) -> bool {
        if self.full_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.forget_removed();
        let held = self.segments.iter().flat_map(|it| &it.all).map(|segment| segment.length).sum::<u64>();
        let free = limits::free_space(&self.place.spool()).unwrap_or(u64::MAX);
        let allowed = held.saturating_add(free) / 2;
        // Several, so that one can be removed while the next is written.
        let room = self.largest.min(allowed / 4);
        let file = (room >= SMALLEST && held + room <= allowed)
            .then(|| disk::private().append(true).create_new(true).open(self.place.segment(stream, begin)).ok())
            .flatten();
        let Some(file) = file else {
            self.full_until = Some(Instant::now() + RETRY);
            return false;
        };
        self.full_until = None;
        let segments = &mut self.segments[stream as usize];
        segments.all.push_back(Segment { begin, length: 0 });
        segments.open = Some((file, room));
        true
    }

    /// Removes what is safe elsewhere, as far as it is whole segments.
    pub(crate) fn remove_until(&mut self, safe: [u64; 2]) {
        for stream in Stream::ALL {
            let Segments { all, open } = &mut self.segments[stream as usize];
            while all.len() > usize::from(open.is_some())
                && let Some(segment) = all.front()
                && segment.begin + segment.length <= safe[stream as usize]
            {
                let _ = fs::remove_file(self.place.segment(stream, segment.begin));
                all.pop_front();
                self.removed += 1;
                self.full_until = None;
            }
        }
    }

    /// Takes note of what whoever follows the run has removed.
    pub(crate) fn forget_removed(&mut self) {
        for stream in Stream::ALL {
            let Segments { all, open } = &mut self.segments[stream as usize];
            while all.len() > usize::from(open.is_some())
                && let Some(segment) = all.front()
                && fs::symlink_metadata(self.place.segment(stream, segment.begin)).is_err()
            {
                all.pop_front();
                self.removed += 1;
            }
        }
    }

    /// The files of it that are not safe elsewhere, to be synced.
    pub(crate) fn files(&self) -> Vec<String> {
        let of = |stream: Stream| {
            self.segments[stream as usize].all.iter().map(move |segment| self.place.segment(stream, segment.begin))
        };
        Stream::ALL.into_iter().flat_map(of).collect()
    }
}

/// The segments on the disk, in order.
fn list(place: &Place) -> Vec<(Stream, u64)> {
    let entries = fs::read_dir(place.spool()).into_iter().flatten().take(MOST);
    let mut all: Vec<_> = entries.filter_map(|entry| Place::parse_segment(entry.ok()?.file_name().to_str()?)).collect();
    all.sort_unstable_by_key(|(stream, begin)| (*stream as usize, *begin));
    all
}

/// Removes what is safe elsewhere of a run that somebody else supervises, as far as it is whole segments.
pub(crate) fn remove_until(place: &Place, safe: [u64; 2]) {
    let all = list(place);
    for (segment, next) in all.iter().zip(all.iter().skip(1)) {
        if segment.0 == next.0 && next.1 <= safe[next.0 as usize] {
            let _ = fs::remove_file(place.segment(segment.0, segment.1));
        }
    }
}

/// Removes all of it.
pub(crate) fn remove(place: &Place) -> io::Result<()> {
    home::remove_dir(&place.spool())
}

/// Reads a stream from some offset on, while it is written or later.
pub(crate) struct Reader {
    place: Place,
    stream: Stream,
    offset: u64,
    open: Option<(u64, File)>,
}

impl Reader {
    pub(crate) fn new(place: &Place, stream: Stream, offset: u64) -> Self {
        Self { place: place.clone(), stream, offset, open: None }
    }

    /// Where it is.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on after bytes that were had from elsewhere.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.offset += bytes;
        self.open = None;
    }

    /// How much there is that was not read.
    pub(crate) fn ahead(&self) -> u64 {
        let last = list(&self.place).into_iter().rfind(|(stream, _)| *stream == self.stream);
        let end = last.and_then(|(stream, begin)| {
            let length = fs::symlink_metadata(self.place.segment(stream, begin)).ok()?.len();
            Some(begin.saturating_add(length.min(LONGEST_SEGMENT)))
        });
        end.unwrap_or_default().saturating_sub(self.offset)
    }

    /// The next bytes; none where there are none now, or they are gone.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        loop {
            let (begin, file) = match &self.open {
                Some(open) => (open.0, &open.1),
                None => match self.find() {
                    Some(found) => {
                        let open = self.open.insert(found);
                        (open.0, &open.1)
                    }
                    None => return 0,
                },
            };
            // The program could have made it longer.
            let most = LONGEST_SEGMENT.saturating_sub(self.offset - begin);
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
            let read = file.read_at(&mut buffer[..most], self.offset - begin).unwrap_or_default();
            self.offset += read as u64;
            if read > 0 || self.offset == begin || buffer.is_empty() {
                return read;
            }
            // At its end: the next one begins here, once it is there.
            match self.open_segment(self.offset) {
                Some(next) => self.open = Some(next),
                None => return 0,
            }
        }
    }

    /// The segment that holds the byte at the offset, or will.
    fn find(&self) -> Option<(u64, File)> {
        self.open_segment(self.offset).or_else(|| {
            let before = |(stream, begin): &(Stream, u64)| *stream == self.stream && *begin < self.offset;
            let (_, begin) = list(&self.place).into_iter().rfind(before)?;
            self.open_segment(begin)
        })
    }

    fn open_segment(&self, begin: u64) -> Option<(u64, File)> {
        Some((begin, home::open(&self.place.segment(self.stream, begin))?))
    }
}
