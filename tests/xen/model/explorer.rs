//! All states, breadth first.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use pcidevs::DomainId;
use pcidevs::xen::memory::{ConnectionId, Database};
use pcidevs::xen::store::{Refusal, Reply, Request, StoreError};

use super::actor::Actor;
use super::kernel::SEEN;
use super::replay::{Answer, Ask, Replay};

/// A party, and where it is in its turn.
#[derive(Clone, Hash)]
pub(super) struct Party {
    pub(super) actor: Actor,
    connection: ConnectionId,
    answers: Rc<Vec<Answer>>,
    /// `None`: it has nothing left to do.
    ask: Option<Ask>,
}

/// Everything there is.
#[derive(Clone, Hash)]
pub(super) struct Situation {
    pub(super) store: Database,
    pub(super) parties: Vec<Party>,
}

impl Situation {
    pub(super) fn new(store: Database) -> Self {
        Self { store, parties: Vec::new() }
    }

    pub(super) fn with(mut self, actor: Actor, domain: DomainId) -> Self {
        let connection = self.store.connect(domain);
        let mut party = Party { actor, connection, answers: Rc::default(), ask: None };
        party.run();
        self.parties.push(party);
        self
    }

    /// What happens if this party goes on; `None` if it cannot.
    ///
    /// Of a transaction all at once: one that ends well is as if nobody had come in between, and one that does not has
    /// done nothing and is tried again (the store's own tests, and `transactions_are_as_if_they_were_one_step` here).
    fn step(&self, who: usize, grain: Grain) -> Option<(Self, Vec<(Ask, Answer)>)> {
        let (mut next, mut done) = (self.clone(), Vec::new());
        loop {
            done.push(next.request(who)?);
            next.store.coalesce();
            let goes_on = next.parties[who]
                .ask
                .as_ref()
                .is_some_and(|ask| next.is_nobodys_business(ask) || next.is_look(who, ask, grain));
            if !goes_on || grain == Grain::Request {
                return Some((next, done));
            }
        }
    }

    /// Whether it makes no difference what others do before it.
    ///
    /// The requests of an open transaction, see above. A watch: an event waits after it, whatever was written before; and
    /// with one, as many as were written after. The end of a watch: its events are gone, whenever they came. Whether a guest
    /// lives, where none can die. What only the rules look at.
    fn is_nobodys_business(&self, ask: &Ask) -> bool {
        let deadly = self.parties.iter().any(|party| party.actor.is_deadly());
        match ask {
            Ask::Request(Some(_), _) | Ask::Request(None, Request::Watch(..) | Request::Unwatch(..)) => true,
            Ask::Request(None, Request::IsIntroduced(_)) => !deadly,
            Ask::Request(None, Request::Write(path, _)) => path.as_str() == SEEN,
            _ => false,
        }
    }

    /// Whether it is part of a tool stack's look at both states, where that counts as one step.
    fn is_look(&self, who: usize, ask: &Ask, grain: Grain) -> bool {
        let reads = matches!(ask, Ask::Request(None, Request::Read(_)));
        grain == Grain::Look && reads && matches!(self.parties[who].actor, Actor::Tool(_))
    }

    /// What comes of one order, in which everybody goes on as far as he can.
    pub(super) fn settled(mut self) -> Self {
        while let Some(next) = (0..self.parties.len()).find_map(|who| self.step(who, Grain::Transaction)) {
            self = next.0;
        }
        self
    }

    /// One order, up to where this is so for the first time.
    pub(super) fn until(mut self, reached: impl Fn(&Self) -> bool) -> Self {
        while !reached(&self) {
            let next = (0..self.parties.len()).find_map(|who| self.step(who, Grain::Transaction));
            self = next.expect("it is reached").0;
        }
        self
    }

    /// Without the tool stacks that are done.
    pub(super) fn without_tools(mut self) -> Self {
        let (kept, done) = self.parties.drain(..).partition(|party| !matches!(party.actor, Actor::Tool(_)));
        self.parties = kept;
        let done: Vec<Party> = done;
        for party in &done {
            self.store.disconnect(party.connection);
        }
        self
    }

    fn request(&mut self, who: usize) -> Option<(Ask, Answer)> {
        let party = &self.parties[who];
        let ask = party.ask.clone()?;
        let answer = match &ask {
            Ask::Request(transaction, request) => {
                Answer::Reply(self.store.request(party.connection, *transaction, request))
            }
            Ask::Event if self.store.has_event(party.connection) => {
                Answer::Event(self.store.take_event(party.connection))
            }
            Ask::Event if party.actor.is_impatient() => Answer::Event(None),
            Ask::Event => return None,
            Ask::Death(guest) => {
                self.store.domain_dies(*guest);
                Answer::Event(None)
            }
        };
        let party = &mut self.parties[who];
        if answer == Answer::Reply(Err(StoreError::Closed)) {
            // Its domain is dead: it never goes on.
            party.ask = None;
        } else {
            Rc::make_mut(&mut party.answers).push(answer.clone());
            party.run();
        }
        Some((ask, answer))
    }

    fn fingerprint(&self) -> u128 {
        let mut halves = [DefaultHasher::new(), DefaultHasher::new()];
        1_u8.hash(&mut halves[1]);
        for half in &mut halves {
            self.hash(half);
        }
        u128::from(halves[0].finish()) << 64 | u128::from(halves[1].finish())
    }
}

impl Party {
    /// Runs the code again, up to what it asks next.
    fn run(&mut self) {
        loop {
            self.ask = None;
            if self.actor.is_done() {
                return;
            }
            let mut actor = self.actor.clone();
            let mut replay = Replay::new(&self.answers);
            let turn = actor.turn(&mut replay);
            if replay.ask.is_some() {
                self.ask = replay.ask;
                self.forget_looks();
                return;
            }
            turn.unwrap_or_else(|error| panic!("{actor:?}: {error}"));
            self.actor = actor;
            self.answers = Rc::default();
        }
    }
}

/// What a wait looks at before each event: whether the guest lives, and both states.
const LOOK: usize = 3;

fn is_look(answers: &[Answer]) -> bool {
    match answers {
        [Answer::Reply(Ok(Reply::Flag(_))), rest @ ..] => {
            let is_state = |answer: &Answer| {
                let none = StoreError::Refused(Refusal::NotFound);
                matches!(answer, Answer::Reply(Ok(Reply::Value(_)))) || *answer == Answer::Reply(Err(none))
            };
            rest.len() == LOOK - 1 && rest.iter().all(is_state)
        }
        _ => false,
    }
}

/// What others can come between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Any two requests.
    Request,
    /// Any two requests but those of one transaction, and those that are nobody else's business.
    Transaction,
    /// The same, and a tool stack that waits looks at both sides at once. Coarser than what is: for what would be too much
    /// otherwise, of what the finer grain has been through with one tool stack.
    Look,
}

impl Party {
    /// A tool stack that waits remembers of what it saw only the last look: the others are taken out of its answers, as if
    /// the last had been the first. Whoever waits longer is then not in another state for it. The last is only for the
    /// report of one whose time is up; where it never is, it is forgotten as well.
    fn forget_looks(&mut self) {
        if self.ask != Some(Ask::Event) || !matches!(self.actor, Actor::Tool(_)) {
            return;
        }
        let end = self.answers.len();
        let Some(look) = end.checked_sub(LOOK).filter(|look| is_look(&self.answers[*look..])) else { return };
        let answers = Rc::make_mut(&mut self.answers);
        if !self.actor.is_impatient() {
            answers[look + 1..].fill(Answer::Reply(Ok(Reply::Value(b"0".to_vec()))));
        }
        let Some(event) = look.checked_sub(1).filter(|event| *event >= LOOK) else { return };
        if matches!(answers[event], Answer::Event(Some(_))) && is_look(&answers[event - LOOK..event]) {
            answers.drain(event - LOOK..=event);
        }
    }
}

/// What must be so.
pub(super) struct Rules {
    /// In every situation.
    pub(super) always: fn(&Situation) -> Result<(), String>,
    /// Where nobody can go on.
    pub(super) finally: fn(&Situation) -> Result<(), String>,
}

/// How much there was to see, in words.
pub(super) type Explored = String;

/// More than any scenario needs here; one that needs more is not finished, and says so.
const MOST: usize = 3_000_000;

/// Goes through every interleaving. The error is the shortest way to where a rule is broken.
pub(super) fn explore(start: &Situation, grain: Grain, rules: &Rules) -> Result<Explored, String> {
    let mut met = HashSet::from([start.fingerprint()]);
    // Where each situation came from, for the way back.
    let mut ways: Vec<(usize, usize)> = vec![(0, 0)];
    let mut level = vec![(0, start.clone())];
    let mut ends = 0;
    while !level.is_empty() {
        let mut following = Vec::new();
        for (number, situation) in level {
            (rules.always)(&situation).map_err(|broken| told(start, grain, &ways, number, &broken))?;
            let mut can_go_on = false;
            for who in 0..situation.parties.len() {
                let Some((next, _)) = situation.step(who, grain) else { continue };
                can_go_on = true;
                if met.insert(next.fingerprint()) {
                    ways.push((number, who));
                    following.push((ways.len() - 1, next));
                }
            }
            if !can_go_on {
                ends += 1;
                (rules.finally)(&situation).map_err(|broken| told(start, grain, &ways, number, &broken))?;
            }
            assert!(met.len() < MOST, "not explored to the end");
        }
        level = following;
    }
    assert!(ends > 0, "a scenario comes to an end somewhere");
    Ok(format!("{} situations, {ends} ends", met.len()))
}

/// Goes through every interleaving with at most so many preemptions: switches away from a party that could have gone on.
///
/// What is too large to be explored to the end is so by the number of switches; most races need two or three.
pub(super) fn explore_bounded(
    start: &Situation,
    grain: Grain,
    preemptions: usize,
    rules: &Rules,
) -> Result<Explored, String> {
    // Who has moved last is part of where one is: who goes on for free depends on it.
    let mut met = HashSet::from([(start.fingerprint(), usize::MAX)]);
    let mut ways: Vec<(usize, usize)> = vec![(0, 0)];
    let mut rounds: Vec<Vec<(usize, usize, Situation)>> = vec![Vec::new(); preemptions + 1];
    rounds[0].push((0, usize::MAX, start.clone()));
    let mut ends = 0;
    for round in 0..=preemptions {
        while let Some((number, last, situation)) = rounds[round].pop() {
            (rules.always)(&situation).map_err(|broken| told(start, grain, &ways, number, &broken))?;
            let steps: Vec<Option<Situation>> = (0..situation.parties.len())
                .map(|who| situation.step(who, grain).map(|(next, _)| next))
                .collect();
            if steps.iter().all(Option::is_none) {
                ends += 1;
                (rules.finally)(&situation).map_err(|broken| told(start, grain, &ways, number, &broken))?;
                continue;
            }
            let could_go_on = steps.get(last).is_some_and(Option::is_some);
            for (who, next) in steps.into_iter().enumerate() {
                let Some(next) = next else { continue };
                let cost = round + usize::from(could_go_on && who != last);
                if cost <= preemptions && met.insert((next.fingerprint(), who)) {
                    ways.push((number, who));
                    rounds[cost].push((ways.len() - 1, who, next));
                }
            }
            assert!(met.len() < MOST, "not explored to the end");
        }
    }
    assert!(ends > 0, "a scenario comes to an end somewhere");
    Ok(format!("{} situations, {ends} ends, at most {preemptions} preemptions", met.len()))
}

/// The way to a situation, request by request.
fn told(start: &Situation, grain: Grain, ways: &[(usize, usize)], mut number: usize, broken: &str) -> String {
    let mut steps = Vec::new();
    while number != 0 {
        let (from, who) = ways[number];
        steps.push(who);
        number = from;
    }
    let mut situation = start.clone();
    let mut text = format!("{broken}\nafter\n");
    for who in steps.into_iter().rev() {
        let Some((next, done)) = situation.step(who, grain) else { break };
        let name = match &situation.parties[who].actor {
            Actor::Tool(_) => format!("tool {who}"),
            Actor::Driver(_) => "driver".to_owned(),
            Actor::Frontend(_) => "front end".to_owned(),
        };
        for (ask, answer) in done {
            let asked = match &ask {
                Ask::Request(Some(t), request) => format!("({}) {request}", t.number()),
                Ask::Request(None, request) => request.to_string(),
                Ask::Event => "event".to_owned(),
                Ask::Death(guest) => format!("domain {guest} dies"),
            };
            // A text that cannot be written is no reason to lose the rest.
            let _written = writeln!(text, "  {name:>9}: {asked} -> {answer:?}");
        }
        situation = next;
    }
    text
}
