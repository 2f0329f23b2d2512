//! xl's strings for a device.

use pcidevs::Sbdf;
use pcidevs::xen::spec::{Functions, GuestSlot, InvalidSpec, Problem, RdmPolicy, Spec, Which};
use proptest::prelude::*;

/// What is taken, and what it says when it is written down again.
const TAKEN: &[(&str, &str)] = &[
    ("0000:03:00.0", "0000:03:00.0"),
    ("03:00.0", "0000:03:00.0"),
    ("3:0.0", "0000:03:00.0"),
    ("FFFF:FF:1F.7", "ffff:ff:1f.7"),
    ("10000:e1:00.0", "10000:e1:00.0"),
    ("ffffffff:00:00.0", "ffffffff:00:00.0"),
    ("03:00.*", "0000:03:00.*"),
    ("03:00.0@5", "0000:03:00.0,vslot=5"),
    ("03:00.0@1f", "0000:03:00.0,vslot=1f"),
    ("03:00.0,vslot=1F", "0000:03:00.0,vslot=1f"),
    ("03:00.0,", "0000:03:00.0"),
    ("bdf=03:00.0", "0000:03:00.0"),
    ("bdf=03:00.0@5,seize=0", "0000:03:00.0,vslot=5,seize=0"),
    ("permissive=1,bdf=03:00.0", "0000:03:00.0,permissive=1"),
    ("name=gpu", "name=gpu"),
    ("name=gpu,permissive=0,", "name=gpu,permissive=0"),
    ("03:00.0,name=gpu", "0000:03:00.0,name=gpu"),
    ("name=gpu,bdf=03:00.0", "0000:03:00.0,name=gpu"),
    (
        "03:00.0,permissive=1,msitranslate=0,seize=1,power_mgmt=0,rdm_policy=relaxed,name=a.b",
        "0000:03:00.0,name=a.b,permissive=1,msitranslate=0,seize=1,power_mgmt=0,rdm_policy=relaxed",
    ),
    ("03:00.0,rdm_policy=strict", "0000:03:00.0,rdm_policy=strict"),
];

#[test]
fn what_xl_documents_is_taken() -> crate::Tested {
    for (text, again) in TAKEN {
        let spec: Spec = text.parse().map_err(|error| format!("{text}: {error}"))?;
        assert_eq!(spec.to_string(), *again, "{text}");
        assert_eq!(again.parse::<Spec>()?, spec, "{text}");
    }
    Ok(())
}

/// What is not, where it is wrong, and why. Most of it is taken by xl for something that nobody wrote.
const REFUSED: &[(&str, usize, Problem)] = &[
    ("", 0, Problem::Address),
    (",", 0, Problem::Address),
    (",03:00.0", 0, Problem::Address),
    ("03:00", 0, Problem::Address),
    ("03:00.", 6, Problem::Function),
    ("03.0", 0, Problem::Address),
    ("00.0", 0, Problem::Address),
    (":03:00.0", 0, Problem::Address),
    ("::00.0", 0, Problem::Address),
    ("0:0000:03:00.0", 0, Problem::Address),
    ("100000000:03:00.0", 0, Problem::Address),
    ("103:00.0", 0, Problem::Address),
    ("0000:103:00.0", 0, Problem::Address),
    ("03:20.0", 3, Problem::Device),
    ("0000:03:100.0", 8, Problem::Device),
    ("03:.0", 3, Problem::Device),
    ("03:00.8", 6, Problem::Function),
    ("03:00.00", 6, Problem::Function),
    ("03:00.10", 6, Problem::Function),
    ("03:00.0x", 6, Problem::Function),
    ("03:00.**", 6, Problem::Function),
    ("03:00.0.0", 6, Problem::Function),
    (" 03:00.0", 0, Problem::Address),
    ("03:00.0 ", 6, Problem::Function),
    ("03: 0.0", 3, Problem::Device),
    ("+3:00.0", 0, Problem::Address),
    ("-3:00.0", 0, Problem::Address),
    ("0x3:00.0", 0, Problem::Address),
    ("0x0:03:00.0", 0, Problem::Address),
    ("03:+1.0", 3, Problem::Device),
    ("03:00.-0", 6, Problem::Function),
    ("03:00.0@", 8, Problem::Slot),
    ("03:00.0@20", 8, Problem::Slot),
    ("03:00.0@005", 8, Problem::Slot),
    ("03:00.0@0x5", 8, Problem::Slot),
    ("03:00.0@-1", 8, Problem::Slot),
    ("03:00.0@5@6", 8, Problem::Slot),
    ("03:00.0,vslot=", 14, Problem::Slot),
    ("03:00.0@5,vslot=5", 16, Problem::Twice),
    ("03:00.0,bdf=03:00.0", 12, Problem::Twice),
    ("03:00.0,seize=yes", 14, Problem::Switch),
    ("03:00.0,seize=2", 14, Problem::Switch),
    ("03:00.0,seize=01", 14, Problem::Switch),
    ("03:00.0,seize=", 14, Problem::Switch),
    ("03:00.0,seize", 8, Problem::Pair),
    ("03:00.0,seize= 1", 14, Problem::Switch),
    ("03:00.0,seize =1", 8, Problem::UnknownKey),
    ("03:00.0, seize=1", 8, Problem::UnknownKey),
    ("03:00.0,SEIZE=1", 8, Problem::UnknownKey),
    ("03:00.0,seize=1,seize=1", 16, Problem::Twice),
    ("03:00.0,permissive=1,permissive=0", 21, Problem::Twice),
    ("03:00.0,rdm_policy=lax", 19, Problem::Policy),
    ("03:00.0,rdm_policy=strict,rdm_policy=strict", 26, Problem::Twice),
    ("03:00.0,frobnicate=1", 8, Problem::UnknownKey),
    ("03:00.0,=1", 8, Problem::UnknownKey),
    ("03:00.0,,seize=1", 8, Problem::Pair),
    ("03:00.0,,", 8, Problem::Pair),
    ("03:00.0,name=", 13, Problem::Name),
    ("name=", 5, Problem::Name),
    ("name=a b", 5, Problem::Name),
    ("name=a,name=b", 7, Problem::Twice),
    ("permissive=1", 12, Problem::Nothing),
    ("bdf=", 4, Problem::Address),
    ("seize=1,03:00.0", 8, Problem::Pair),
];

#[test]
fn what_nobody_can_have_meant_is_refused() {
    for (text, position, problem) in REFUSED {
        let expected = InvalidSpec { position: *position, problem: problem.clone() };
        assert_eq!(text.parse::<Spec>(), Err(expected), "{text:?}");
    }
}

#[test]
fn a_star_means_every_function() -> crate::Tested {
    let all: Vec<String> = "03:1f.*".parse::<Spec>()?.addresses().iter().map(Sbdf::to_string).collect();
    let expected: Vec<String> = (0..8).map(|function| format!("0000:03:1f.{function}")).collect();
    assert_eq!(all, expected);
    Ok(())
}

#[test]
fn an_address_makes_a_spec_that_says_nothing_else() -> crate::Tested {
    let address: Sbdf = "10000:e1:1f.7".parse()?;
    assert_eq!(Spec::of(address).to_string(), "10000:e1:1f.7");
    assert_eq!(Spec::of(address).addresses(), [address]);
    Ok(())
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let which = prop_oneof![
        4 => (any::<u32>(), any::<u16>(), prop::bool::weighted(0.2)).prop_map(|(segment, bdf, all)| {
            let address = Sbdf::from_bdf(pcidevs::address::Segment::new(segment), bdf);
            let mut which = Spec::of(address).which;
            if let (true, Which::Address { functions, .. }) = (all, &mut which) {
                *functions = Functions::All;
            }
            which
        }),
        1 => Just(Which::Name),
    ];
    let switches = prop::array::uniform4(any::<Option<bool>>());
    let slot = prop::option::of((0..32_u8).prop_map(|slot| GuestSlot::new(slot).expect("a slot")));
    let policy = prop::option::of(prop::sample::select(vec![RdmPolicy::Strict, RdmPolicy::Relaxed]));
    (which, switches, slot, policy, prop::option::of("[a-zA-Z0-9._:@-]{1,12}")).prop_map(
        |(which, [permissive, msitranslate, seize, power_mgmt], slot, rdm_policy, name)| {
            // Who is named by name has one.
            let name = name.or_else(|| (which == Which::Name).then(|| "n".to_owned()));
            Spec { which, slot, permissive, msitranslate, seize, power_mgmt, rdm_policy, name }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_down_is_read_as_it_was(spec in any_spec()) {
        prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec));
    }

    #[test]
    fn any_text_is_taken_whole_or_refused_inside_it(text in "[0-9a-fx:.*@,= +-]{0,24}|\\PC{0,16}") {
        match text.parse::<Spec>() {
            Ok(spec) => prop_assert_eq!(spec.to_string().parse::<Spec>(), Ok(spec)),
            Err(error) => prop_assert!(error.position <= text.len()),
        }
    }
}
