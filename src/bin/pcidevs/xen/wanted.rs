//! Which devices and guests the arguments mean.

use pcidevs::xen::manager::XenManager;
use pcidevs::xen::pciback::{Export, Options};
use pcidevs::xen::spec::{Functions, Spec, Which};
use pcidevs::{DomainId, Sbdf};

/// The guest of this number or name.
pub(super) fn guest(manager: &XenManager, text: &str) -> Result<DomainId, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(DomainId::new).map_err(|_| format!("{text}: no domain has such a number"));
    }
    match manager.guest_named(text) {
        Ok(Some(guest)) => Ok(guest),
        Ok(None) => Err(format!("there is no domain {text:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// The devices that a string means: every function that is there, for `*`.
pub(super) fn devices(manager: &XenManager, spec: &Spec) -> Result<Vec<Sbdf>, String> {
    match &spec.which {
        Which::Name => {
            let name = spec.name.as_deref().unwrap_or_default();
            match manager.named(name) {
                Ok(Some(device)) => Ok(vec![device]),
                Ok(None) => Err(format!("no assignable device is called {name:?}: see `assignable-list`")),
                Err(error) => Err(error.to_string()),
            }
        }
        Which::Address { functions: Functions::One(_), .. } => Ok(spec.addresses()),
        Which::Address { functions: Functions::All, .. } => {
            let there: Vec<Sbdf> =
                spec.addresses().into_iter().filter(|device| manager.owner(*device).is_some()).collect();
            if there.is_empty() { Err(format!("{spec}: there is no such device")) } else { Ok(there) }
        }
    }
}

/// What the guest is to get of it.
pub(super) fn exports(manager: &XenManager, spec: &Spec) -> Result<Vec<Export>, String> {
    let usual = Options::default();
    let options = Options {
        msitranslate: spec.msitranslate.unwrap_or(usual.msitranslate),
        power_mgmt: spec.power_mgmt.unwrap_or(usual.power_mgmt),
        permissive: spec.permissive.unwrap_or(usual.permissive),
        rdm_policy: spec.rdm_policy.unwrap_or(usual.rdm_policy),
    };
    let export = |device| Export { device, slot: spec.slot, options, name: spec.name.clone() };
    Ok(devices(manager, spec)?.into_iter().map(export).collect())
}
