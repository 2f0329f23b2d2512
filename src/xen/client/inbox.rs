//! Events that nobody has asked for yet, in bounded memory.

use std::collections::VecDeque;

use crate::xen::store::{Event, Watched};

/// How many different events wait at most.
const LIMIT: usize = 1024;

/// The events that came while something else was awaited.
///
/// An event only says "read again", so an equal one that waits already stands for both; and when too many different ones
/// wait, one for each watch stands for all: whoever gets it reads everything.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: VecDeque<Event>,
    watches: Vec<(Watched, String)>,
}

impl Inbox {
    pub(super) fn watch(&mut self, watched: &Watched, token: &str) {
        self.watches.push((watched.clone(), token.to_owned()));
    }

    /// The last watch was one too many.
    pub(super) fn forget_last(&mut self) {
        self.watches.pop();
    }

    pub(super) fn unwatch(&mut self, watched: &Watched, token: &str) {
        self.watches.retain(|(w, t)| w != watched || t != token);
        // What came before has nobody to go to any more.
        let watches = &self.watches;
        self.events.retain(|event| watches.iter().any(|watch| watch.1 == event.token));
    }

    pub(super) fn put(&mut self, event: Event) {
        // A store that sends what nobody asked for fills no memory.
        if self.events.contains(&event) || !self.watches.iter().any(|watch| watch.1 == event.token) {
            return;
        }
        self.events.push_back(event);
        if self.events.len() > LIMIT {
            let all = self.watches.iter().cloned().map(|(path, token)| Event { path, token });
            self.events = all.collect();
        }
    }

    pub(super) fn take(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::store::NodePath;

    fn event(number: usize) -> Result<Event, Box<dyn std::error::Error>> {
        Ok(Event { path: NodePath::new(&format!("/a/{number}"))?.into(), token: "t".into() })
    }

    #[test]
    fn too_many_events_become_one_for_each_watch() -> Result<(), Box<dyn std::error::Error>> {
        let mut inbox = Inbox::default();
        let watched = Watched::from(NodePath::new("/a")?);
        inbox.watch(&watched, "t");
        for number in 0..=LIMIT {
            inbox.put(event(number)?);
        }
        assert_eq!(inbox.take(), Some(Event { path: watched, token: "t".into() }));
        assert_eq!(inbox.take(), None);
        Ok(())
    }

    #[test]
    fn what_nobody_watches_is_not_kept() -> Result<(), Box<dyn std::error::Error>> {
        let mut inbox = Inbox::default();
        inbox.put(event(1)?);
        assert_eq!(inbox.take(), None);
        let watched = Watched::from(NodePath::new("/a")?);
        inbox.watch(&watched, "t");
        inbox.put(event(1)?);
        inbox.unwatch(&watched, "t");
        assert_eq!(inbox.take(), None);
        Ok(())
    }
}
