//! Nodes and values.

use pcidevs::xen::store::{Refusal, StoreError};

use super::{path, refused};
use crate::Tested;
use crate::stores::on_every_store;

#[test]
fn a_write_creates_the_node_and_what_is_above_with_empty_values() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.write(None, &path("/t/a/b")?, b"one")?;
        assert_eq!(store.read(None, &path("/t/a/b")?)?, b"one");
        assert_eq!(store.read(None, &path("/t/a")?)?, b"");
        store.write(None, &path("/t/a/b")?, b"two")?;
        assert_eq!(store.read(None, &path("/t/a/b")?)?, b"two");
        Ok(())
    })
}

#[test]
fn a_value_is_any_bytes() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        let bytes: Vec<u8> = (0..=255).collect();
        store.write(None, &path("/t/bytes")?, &bytes)?;
        assert_eq!(store.read(None, &path("/t/bytes")?)?, bytes);
        Ok(())
    })
}

#[test]
fn a_node_that_is_not_there_is_not_found() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        assert_eq!(store.read(None, &path("/t/none")?), refused(Refusal::NotFound));
        assert_eq!(store.find(None, &path("/t/none")?), Ok(None));
        assert_eq!(store.directory(None, &path("/t/none")?), refused(Refusal::NotFound));
        assert_eq!(store.permissions(None, &path("/t/none")?), refused(Refusal::NotFound));
        Ok(())
    })
}

#[test]
fn mkdir_leaves_a_node_that_exists_as_it_is() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.write(None, &path("/t/a")?, b"kept")?;
        store.mkdir(None, &path("/t/a")?)?;
        store.mkdir(None, &path("/t/new")?)?;
        assert_eq!(store.read(None, &path("/t/a")?)?, b"kept");
        assert_eq!(store.read(None, &path("/t/new")?)?, b"");
        Ok(())
    })
}

#[test]
fn remove_takes_everything_below() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        for below in ["/t/a", "/t/a/b/c", "/t/a-b", "/t/a/d", "/t/a0"] {
            store.write(None, &path(below)?, b"")?;
        }
        store.remove(None, &path("/t/a")?)?;
        assert_eq!(store.find(None, &path("/t/a/b/c")?)?, None);
        let mut left = store.directory(None, &path("/t")?)?;
        left.sort();
        assert_eq!(left, ["a-b", "a0"]);
        Ok(())
    })
}

#[test]
fn remove_of_nothing_is_right_where_its_parent_is() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        store.mkdir(None, &path("/t")?)?;
        assert_eq!(store.remove(None, &path("/t/none")?), Ok(()));
        assert_eq!(store.remove(None, &path("/t/none/below")?), refused(Refusal::NotFound));
        assert_eq!(store.remove(None, &path("/")?), refused(Refusal::Invalid));
        Ok(())
    })
}

#[test]
fn a_directory_names_the_children_and_no_others() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        for below in ["/t/b", "/t/a/x", "/t/a-x", "/u"] {
            store.write(None, &path(below)?, b"")?;
        }
        let mut names = store.directory(None, &path("/t")?)?;
        names.sort();
        assert_eq!(names, ["a", "a-x", "b"]);
        assert_eq!(store.directory(None, &path("/t/b")?)?, [""; 0]);
        Ok(())
    })
}

#[test]
fn a_directory_longer_than_a_message_comes_whole() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        let expected: Vec<String> = (0..700).map(|number| format!("child-with-a-name-{number:04}")).collect();
        for name in &expected {
            store.write(None, &path("/t")?.child(name)?, b"")?;
        }
        let mut names = store.directory(None, &path("/t")?)?;
        names.sort();
        assert_eq!(names, expected);
        let transaction = store.begin()?;
        assert_eq!(store.directory(Some(transaction), &path("/t")?)?.len(), 700);
        Ok(())
    })
}

#[test]
fn what_fits_no_message_is_not_sent_and_the_connection_goes_on() -> Tested {
    on_every_store(|world| {
        let mut store = world.connect();
        assert_eq!(store.write(None, &path("/t/long")?, &[b'x'; 4096]), Err(StoreError::TooLong));
        store.write(None, &path("/t/fits")?, &[b'x'; 4096 - 8])?;
        assert_eq!(store.read(None, &path("/t/fits")?)?.len(), 4088);
        Ok(())
    })
}
