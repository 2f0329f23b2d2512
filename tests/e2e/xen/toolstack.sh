# What is tried: the command's deeds, or xl's in its place.
case $(cat /toolstack) in
    pcidevs)
        assignable() { timeout 60 pcidevs xen assignable-add "$@"; }
        unassignable() { timeout 60 pcidevs xen assignable-remove "$@"; }
        # To a guest that does not run yet: the whole set at once. Nothing of it is in the guest's configuration.
        configured() { :; }
        give_first() { give "$@"; }
        give() { local guest=$1; shift; timeout 60 pcidevs xen attach "$guest" "$@"; }
        take() { local guest=$1; shift; timeout 60 pcidevs xen detach "$guest" "$@"; }
        ;;
    xl)
        assignable() { for card in "$@"; do xl pci-assignable-add "$card"; done; }
        unassignable() { for card in "$@"; do xl pci-assignable-remove -r "$card"; done; }
        # xl attaches to guests that run; before, it gives what is in the configuration, one after the other.
        configured() { echo "pci = [ $(printf "'%s', " "$@") ]"; }
        give_first() { :; }
        give() { local guest=$1; shift; for card in "$@"; do xl pci-attach "$guest" "$card"; done; }
        take() { local guest=$1; shift; for card in "$@"; do xl pci-detach "$guest" "$card"; done; }
        ;;
esac
