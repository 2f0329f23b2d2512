//! The wire protocol against a server that says anything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pcidevs::DomainId;
use pcidevs::xen::client::Connection;
use pcidevs::xen::store::{End, Event, NodePath, Refusal, Reply, Request, Store, StoreError, Watched};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::Tested;

const READ: u32 = 2;
const DIRECTORY: u32 = 1;
const EVENT: u32 = 15;
const ERROR: u32 = 16;
const DIRECTORY_PART: u32 = 22;

/// A request as it came.
#[derive(Debug, PartialEq)]
struct Asked {
    kind: u32,
    request: u32,
    transaction: u32,
    payload: Vec<u8>,
}

fn message(kind: u32, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes: Vec<u8> =
        [kind, request, transaction, length].iter().flat_map(|n| n.to_ne_bytes()).collect();
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes a request off the stream.
fn asked(stream: &mut UnixStream) -> Asked {
    let mut header = [0; 16];
    stream.read_exact(&mut header).expect("a header");
    let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let mut payload = vec![0; field(12) as usize];
    stream.read_exact(&mut payload).expect("a payload");
    Asked { kind: field(0), request: field(4), transaction: field(8), payload }
}

/// A server that answers each request with what `answer` makes of it, byte for byte, and then hangs up.
fn server(
    answers: Vec<fn(&Asked) -> Vec<u8>>,
) -> Result<(Connection<UnixStream>, JoinHandle<Vec<Asked>>), std::io::Error> {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let served = thread::spawn(move || {
        let mut all = Vec::new();
        for answer in answers {
            let request = asked(&mut theirs);
            theirs.write_all(&answer(&request)).expect("the client listens");
            all.push(request);
        }
        all
    });
    Ok((Connection::new(ours), served))
}

fn node(text: &str) -> NodePath {
    NodePath::new(text).expect("a path")
}

#[test]
fn a_request_is_a_header_and_strings() -> Tested {
    let (mut store, served) =
        server(vec![|asked| message(asked.kind, asked.request, asked.transaction, b"OK\0"); 4])?;
    store.write(None, &node("/a"), b"1\x002")?;
    store.watch(&Watched::from(node("/a")), "tok")?;
    store.introduce(DomainId::new(7), 11, 12)?;
    store.request(None, &Request::End(End::Discard))?;
    let asked = served.join().map_err(|_| "the server failed")?;
    let payloads: Vec<&[u8]> = asked.iter().map(|asked| &asked.payload[..]).collect();
    assert_eq!(payloads, [&b"/a\x001\x002"[..], b"/a\0tok\0", b"7\x0011\x0012\0", b"F\0"]);
    assert_eq!(asked.iter().map(|asked| asked.kind).collect::<Vec<_>>(), [11, 4, 8, 7]);
    let mut numbers: Vec<u32> = asked.iter().map(|asked| asked.request).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 4, "every request has a number of its own");
    Ok(())
}

/// What a hostile server answers to a read of `/a`, and that it is not taken.
type Answer = (&'static str, fn(&Asked) -> Vec<u8>);

const HOSTILE: &[Answer] = &[
    ("another request's number", |asked| message(READ, asked.request + 1, 0, b"x")),
    ("another transaction", |asked| message(READ, asked.request, 9, b"x")),
    ("another kind", |asked| message(DIRECTORY, asked.request, 0, b"x")),
    ("a kind that does not exist", |asked| message(0xffff_ffff, asked.request, 0, b"x")),
    ("longer than any message", |asked| {
        let mut bytes = message(READ, asked.request, 0, b"");
        bytes[12..16].copy_from_slice(&4097_u32.to_ne_bytes());
        bytes
    }),
    ("the longest length there is", |asked| {
        let mut bytes = message(READ, asked.request, 0, b"");
        bytes[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        bytes
    }),
    ("an error without a name", |asked| message(ERROR, asked.request, 0, b"")),
    ("an error without an end", |asked| message(ERROR, asked.request, 0, b"ENOENT")),
    ("an error that is none", |asked| message(ERROR, asked.request, 0, b"no such file\0")),
    ("an error with a tail", |asked| message(ERROR, asked.request, 0, b"ENOENT\0EACCES\0")),
    ("an error with an endless name", |asked| {
        message(ERROR, asked.request, 0, &[&[b'E'; 4000][..], b"\0"].concat())
    }),
    ("an event without a token", |_| message(EVENT, 0, 0, b"/a\0")),
    ("an event of three strings", |_| message(EVENT, 0, 0, b"/a\0b\0c\0")),
    ("an event without an end", |_| message(EVENT, 0, 0, b"/a\0b")),
    ("an event of no path", |_| message(EVENT, 0, 0, b"a//b\0tok\0")),
    ("an event that is no text", |_| message(EVENT, 0, 0, b"/\xff\0tok\0")),
];

#[test]
fn an_answer_that_cannot_be_is_malformed_and_ends_the_connection() -> Tested {
    for (name, answer) in HOSTILE {
        let (mut store, served) = server(vec![*answer])?;
        let result = store.read(None, &node("/a"));
        assert!(matches!(result, Err(StoreError::Malformed(_))), "{name}: {result:?}");
        assert_eq!(store.read(None, &node("/a")), Err(StoreError::Closed), "{name}");
        assert_eq!(store.next_event(Duration::ZERO), Err(StoreError::Closed), "{name}");
        served.join().map_err(|_| "the server failed")?;
    }
    Ok(())
}

/// A request whose answer has a form, and a payload that does not have it.
type Misshapen = (&'static str, fn() -> Request, &'static [u8]);

const MISSHAPEN: &[Misshapen] = &[
    ("not OK", || Request::Mkdir(node("/a")), b"KO\0"),
    ("OK without an end", || Request::Mkdir(node("/a")), b"OK"),
    ("nothing", || Request::Mkdir(node("/a")), b""),
    ("a child that is a path", || Request::Directory(node("/a")), b"b/c\0"),
    ("a child that climbs", || Request::Directory(node("/a")), b"..\0"),
    ("a child without a name", || Request::Directory(node("/a")), b"b\0\0"),
    ("a child without an end", || Request::Directory(node("/a")), b"b"),
    ("no permissions", || Request::Permissions(node("/a")), b""),
    ("a permission of no kind", || Request::Permissions(node("/a")), b"x0\0"),
    ("a permission of nobody", || Request::Permissions(node("/a")), b"r\0"),
    ("a permission of a negative", || Request::Permissions(node("/a")), b"r-1\0"),
    ("a permission of too high a number", || Request::Permissions(node("/a")), b"r4294967296\0"),
    ("transaction 0", || Request::Begin, b"0\0"),
    ("a signed transaction", || Request::Begin, b"+1\0"),
    ("a transaction too high", || Request::Begin, b"4294967296\0"),
    ("a transaction without a number", || Request::Begin, b"\0"),
    ("neither true nor false", || Request::IsIntroduced(DomainId::new(1)), b"X\0"),
    ("a relative path", || Request::DomainPath(DomainId::new(1)), b"domain\0"),
];

#[test]
fn a_payload_without_the_form_it_must_have_is_malformed() -> Tested {
    for (name, request, payload) in MISSHAPEN {
        let (ours, mut theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut store = Connection::new(ours);
        let served = thread::spawn(move || {
            let asked = asked(&mut theirs);
            theirs.write_all(&message(asked.kind, asked.request, 0, payload)).expect("the client listens");
        });
        let result = store.request(None, &request());
        assert!(matches!(result, Err(StoreError::Malformed(_))), "{name}: {result:?}");
        assert_eq!(store.read(None, &node("/a")), Err(StoreError::Closed), "{name}");
        served.join().map_err(|_| "the server failed")?;
    }
    Ok(())
}

#[test]
fn an_answer_comes_in_pieces_with_events_around_it() -> Tested {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut store = Connection::new(ours);
    let served = thread::spawn(move || {
        let watch = asked(&mut theirs);
        let first = message(EVENT, 0, 0, b"/a\0tok\0");
        theirs.write_all(&[first, message(watch.kind, watch.request, 0, b"OK\0")].concat()).expect("written");
        let read = asked(&mut theirs);
        let event = |path: &[u8]| message(EVENT, 0, 0, &[path, b"\0tok\0"].concat());
        let answer = message(READ, read.request, 0, b"value");
        let all = [event(b"/a/1"), event(b"/a/1"), answer, event(b"/a/2")].concat();
        for byte in all {
            theirs.write_all(&[byte]).expect("written");
        }
        theirs
    });
    store.watch(&node("/a").into(), "tok")?;
    assert_eq!(store.read(None, &node("/a"))?, b"value");
    let _open = served.join().map_err(|_| "the server failed")?;
    let mut heard = Vec::new();
    while let Some(Event { path, .. }) = store.next_event(Duration::ZERO)? {
        heard.push(path.as_str().to_owned());
    }
    assert_eq!(heard, ["/a", "/a/1", "/a/2"], "an event that waits stands for one like it");
    Ok(())
}

#[test]
fn a_refusal_is_an_answer_and_the_connection_goes_on() -> Tested {
    let refuse: fn(&Asked) -> Vec<u8> = |asked| message(ERROR, asked.request, 0, b"EACCES\0");
    let strange: fn(&Asked) -> Vec<u8> = |asked| message(ERROR, asked.request, 0, b"EMFILE\0");
    let (mut store, _served) = server(vec![refuse, strange, |asked| message(READ, asked.request, 0, b"x")])?;
    assert_eq!(store.read(None, &node("/a")), Err(Refusal::Denied.into()));
    assert_eq!(store.read(None, &node("/a")), Err(Refusal::Other("EMFILE".into()).into()));
    assert_eq!(store.read(None, &node("/a"))?, b"x");
    Ok(())
}

#[test]
fn a_server_that_hangs_up_or_says_nothing_is_an_error() -> Tested {
    let (mut store, _served) = server(vec![|_| Vec::new()])?;
    assert_eq!(store.read(None, &node("/a")), Err(StoreError::Closed));
    let (mut store, _served) = server(vec![|asked| message(READ, asked.request, 0, b"half")[..18].to_vec()])?;
    assert_eq!(store.read(None, &node("/a")), Err(StoreError::Closed));
    let (ours, _silent) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut store = Connection::new(ours).with_patience(Duration::from_millis(1));
    assert_eq!(store.read(None, &node("/a")), Err(StoreError::Stalled));
    assert_eq!(store.read(None, &node("/a")), Err(StoreError::Closed), "its answer could still come");
    Ok(())
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection() -> Tested {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut store = Connection::new(ours);
    theirs.write_all(&message(READ, 1, 0, b"x"))?;
    assert!(matches!(store.next_event(Duration::from_secs(30)), Err(StoreError::Malformed(_))));
    assert_eq!(store.next_event(Duration::ZERO), Err(StoreError::Closed));
    Ok(())
}

const TOO_BIG: fn(&Asked) -> Vec<u8> = |asked| message(ERROR, asked.request, 0, b"E2BIG\0");

#[test]
fn a_long_directory_comes_in_parts_of_one_list() -> Tested {
    let (mut store, served) = server(vec![
        TOO_BIG,
        |asked| message(DIRECTORY_PART, asked.request, 0, b"1\0aa\0b\0"),
        |asked| message(DIRECTORY_PART, asked.request, 0, b"2\0c\0\0"),
        |asked| message(DIRECTORY_PART, asked.request, 0, b"2\0aa\0"),
        |asked| message(DIRECTORY_PART, asked.request, 0, b"2\0d\0\0"),
    ])?;
    assert_eq!(store.directory(None, &node("/t"))?, ["aa", "d"], "the list changed, and was begun anew");
    let asked = served.join().map_err(|_| "the server failed")?;
    let payloads: Vec<&[u8]> = asked.iter().skip(1).map(|asked| &asked.payload[..]).collect();
    assert_eq!(payloads, [&b"/t\x000\0"[..], b"/t\x005\0", b"/t\x000\0", b"/t\x003\0"]);
    Ok(())
}

#[test]
fn a_directory_without_an_end_is_malformed_in_bounded_memory() -> Tested {
    let (mut store, _served) =
        server(vec![TOO_BIG, |asked| message(DIRECTORY_PART, asked.request, 0, b"1\0")])?;
    assert!(matches!(store.directory(None, &node("/t")), Err(StoreError::Malformed(_))), "no progress");
    let part: fn(&Asked) -> Vec<u8> = |asked| {
        let names = [&[b'n'; 1000][..], b"\0"].concat().repeat(4);
        message(DIRECTORY_PART, asked.request, 0, &[b"1\0", &names[..]].concat())
    };
    let mut answers = vec![TOO_BIG];
    answers.resize(400, part);
    let (mut store, _served) = server(answers)?;
    assert!(matches!(store.directory(None, &node("/t")), Err(StoreError::Malformed(_))), "no end");
    let mut answers = vec![TOO_BIG];
    answers.resize(100, |asked| {
        let generation = asked.request.to_string();
        message(DIRECTORY_PART, asked.request, 0, &[generation.as_bytes(), b"\0a\0"].concat())
    });
    let (mut store, _served) = server(answers)?;
    assert_eq!(
        store.directory(None, &node("/t")),
        Err(StoreError::Conflicts { attempts: 16 }),
        "never the same"
    );
    Ok(())
}

#[test]
fn a_token_with_a_zero_byte_is_not_sent() -> Tested {
    let (ours, _silent) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut store = Connection::new(ours);
    assert_eq!(store.watch(&node("/a").into(), "a\0b"), Err(Refusal::Invalid.into()));
    Ok(())
}

#[test]
fn whatever_the_server_says_there_is_an_answer_and_no_panic() -> Tested {
    let requests = [
        Request::Read(node("/a")),
        Request::Directory(node("/a")),
        Request::Permissions(node("/a")),
        Request::Begin,
        Request::IsIntroduced(DomainId::new(1)),
        Request::DomainPath(DomainId::new(1)),
        Request::Mkdir(node("/a")),
    ];
    // Mostly well-formed headers, or nothing would get past them.
    let kind = prop_oneof![8 => 0..24_u32, 1 => any::<u32>()];
    let text = prop::collection::vec(prop::sample::select(b"E/aOKTF01r\0\0\xff".to_vec()), 0..40);
    let said = prop::collection::vec((kind, any::<bool>(), text), 0..4);
    let config = ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() };
    TestRunner::new(config).run(&(prop::sample::select(requests.to_vec()), said), |(request, said)| {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket that does not block");
        let mut store = Connection::new(ours);
        for (kind, right, payload) in &said {
            theirs.write_all(&message(*kind, u32::from(*right), 0, payload)).expect("written");
        }
        theirs.shutdown(std::net::Shutdown::Write).expect("no more to say");
        let first = store.request(None, &request);
        if let Ok(Reply::Path(path)) = &first {
            prop_assert!(path.as_str().starts_with('/'));
        }
        // One that has failed stays failed; one that has not ends when the stream does.
        while store.next_event(Duration::from_secs(30)).is_ok() {}
        prop_assert_eq!(store.request(None, &request), Err(StoreError::Closed));
        Ok(())
    })?;
    Ok(())
}
