# What is promised, on real Xen: each check prints its name and what came of it.
. /toolstack.sh
pci=/sys/bus/pci
log=/var/log/xen/console/guest-cards.log
failed=0

driver() { basename "$(readlink "$pci/devices/$1/driver" || echo none)"; }

# The first function of an ID.
function_of() {
    local device
    for device in "$pci"/devices/*; do
        [ "$(cat "$device/vendor"):$(cat "$device/device")" != "$1" ] || { basename "$device"; return; }
    done
}

# Runs a check in a process of its own.
check() {
    local name=$1
    shift
    # Not as a condition: `set -e` has no effect in one.
    (set -e; "$@") >/tmp/said 2>&1
    if [ $? -eq 0 ]; then
        echo "$name: ok, at $(cut -d. -f1 /proc/uptime) s"
    else
        echo "$name: FAILED"
        sed 's/^/    /' /tmp/said
        failed=1
    fi
}

same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }

# What the guest said that it uses, the last time.
uses() { tr -d '\r' <"$log" | sed -n 's/^guest: uses //p' | tail -1 | sed 's/ *$//'; }

# Waits until the guest uses these, and nothing else.
guest_uses() {
    local tries=0
    until [ "$(uses)" = "$*" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 90 ]; then
            echo "the guest should use '$*'; it said:"
            cat "$log"
            xenstore-ls -f /local/domain/0/backend/pci
            return 1
        fi
        sleep 1
    done
}

network=$(function_of 0x8086:0x10d3)
edu=$(function_of 0x1234:0x11e8)
testdev=$(function_of 0x1b36:0x0005)
ports=$(function_of 0x8086:0x10c9)
# The guest's number, once there is one.
guest() { xl domid cards; }

three_cards_become_assignable() {
    same "$(driver "$network") $(driver "$edu") $(driver "$testdev")" "e1000e none none"
    assignable "$network" "$edu" "$testdev"
    same "$(driver "$network") $(driver "$edu") $(driver "$testdev")" "pciback pciback pciback"
}

running='kernel = "/boot/vmlinux"
ramdisk = "/boot/guest.img"
extra = "console=hvc0 quiet iommu=soft panic=-1"'
still='kernel = "/boot/still"'

# Makes a guest that does not run yet. What else is to stand in its configuration comes from the standard input.
make() {
    local name=$1 memory=$2 kernel=$3 rest
    rest=$(cat)
    cat >"/etc/xen/$name" <<-END
	name = "$name"
	$kernel
	memory = $memory
	vcpus = 1
	on_poweroff = "destroy"
	on_reboot = "destroy"
	on_crash = "destroy"
	$rest
	END
    timeout 120 xl create -p "/etc/xen/$name"
}

# What the hypervisor in memory is tested to do, this one does too.
the_hypervisor_is_as_simulated() {
    printf 'type = "pv"\npassthrough = "enabled"\n' | make one 8 "$still"
    printf 'type = "pv"\npassthrough = "enabled"\n' | make two 8 "$still"
    printf 'type = "pv"\n' | make without 8 "$still"
    printf 'type = "pvh"\n' | make pvh 8 "$still"
    PCIDEVS_XEN_GUESTS="$(for name in one two without pvh; do xl domid $name; done | tr '\n' ' ')" \
        PCIDEVS_XEN_DEVICE=$network timeout 60 tests --nocapture hypercall::same::the_real >/tmp/tests 2>&1 ||
        { cat /tmp/tests; return 1; }
    if grep skipped /tmp/tests; then return 1; fi
    for name in one two without pvh; do xl destroy "$name"; done
}

# Waits until a node of the store says this.
says() {
    local tries=0
    until [ "$(xenstore-read "$1" 2>/dev/null)" = "$2" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 90 ] || { echo "$1 does not say $2"; xenstore-ls -f "${1%/*}"; return 1; }
        sleep 1
    done
}

# libxl's order of writes, a transaction for each device, slowed down until driver and guest look in between: the guest has a
# part, and both sides are content. Nobody would ever tell; that it was only this is seen when somebody does.
a_transaction_for_each_device_gives_a_part() {
    local guest be fe options="msitranslate=0,power_mgmt=0,permissive=0,rdm_policy=strict"
    printf 'type = "pv"\npassthrough = "enabled"\n' | make part 128 "$running"
    guest=$(xl domid part)
    be=/local/domain/0/backend/pci/$guest/0
    fe=/local/domain/$guest/device/pci/0
    xenstore-write "$be" "" "$fe" ""
    xenstore-chmod "$be" n0 "r$guest"
    xenstore-chmod "$fe" "n$guest" r0
    xenstore-write "$fe/backend" "$be" "$fe/backend-id" 0 "$fe/state" 1 \
        "$be/frontend" "$fe" "$be/frontend-id" "$guest" "$be/domain" part "$be/online" 1 "$be/state" 1 \
        "$be/key-0" "$edu" "$be/dev-0" "$edu" "$be/opts-0" "$options" "$be/num_devs" 1
    says "$be/state" 3
    xl unpause part
    says "$be/state" 4
    says "$fe/state" 4
    xenstore-write "$be/key-1" "$testdev" "$be/dev-1" "$testdev" "$be/opts-1" "$options" "$be/state-1" 1 "$be/num_devs" 2
    sleep 2
    same "$(xenstore-read "$be/state-1") $(xenstore-read "$be/vdev-1" 2>/dev/null)" "1 "
    xenstore-write "$be/state" 7
    says "$be/state-1" 3
    says "$be/state" 4
    # libxl finds the cards in the store, and takes them back; what it was not asked to give it cannot take, and says so.
    xl destroy part
    same "$(driver "$edu") $(driver "$testdev")" "pciback pciback"
}

a_guest_is_made() {
    make cards 176 "$running" <<-END
	type = "pv"
	passthrough = "enabled"
	e820_host = 1
	$(configured "$network" "$edu" "$testdev")
	END
}

it_gets_the_set_before_it_starts_and_uses_all_of_it() {
    give_first "$(guest)" "$network" "$edu" "$testdev"
    xl unpause cards
    guest_uses "edu network testdev"
    # Never less on the way.
    same "$(grep -c '^guest: uses' "$log")" 1
}

a_card_is_taken_while_it_runs() {
    take "$(guest)" "$edu"
    guest_uses "network testdev"
}

and_given_again() {
    give "$(guest)" "$edu"
    guest_uses "edu network testdev"
}

a_virtual_function_is_given() {
    local tries=0
    ip link set "$(ls "$pci/devices/$ports/net")" up
    echo 1 >"$pci/devices/$ports/sriov_numvfs"
    local function=$(basename "$(readlink "$pci/devices/$ports/virtfn0")")
    assignable "$function"
    give "$(guest)" "$function"
    guest_uses "edu network testdev virtual"
    take "$(guest)" "$function"
    guest_uses "edu network testdev"
    unassignable "$function"
    echo 0 >"$pci/devices/$ports/sriov_numvfs"
}

# Refused, and told why.
refuses() {
    local why=$1
    shift
    if "$@" >/tmp/refusal 2>&1; then
        echo "it was done: $*"
        return 1
    fi
    grep -qF "$why" /tmp/refusal || { cat /tmp/refusal; return 1; }
}

guests_of_other_kinds_are_refused() {
    printf 'type = "pv"\n' | make without 8 "$still"
    printf 'type = "pvh"\n' | make pvh 8 "$still"
    refuses "was not created with passthrough" give "$(xl domid without)" "$edu"
    refuses "only PV guests are given devices" give "$(xl domid pvh)" "$edu"
    same "$(xenstore-ls /local/domain/0/backend/pci 2>/dev/null)" ""
    xl destroy without
    xl destroy pvh
}

the_host_cannot_have_it_meanwhile() {
    refuses "pciback export of domain $(guest)" unassignable "$network"
    same "$(driver "$network")" pciback
    guest_uses "edu network testdev"
}

the_guest_is_destroyed_and_all_is_as_before() {
    xl destroy cards
    unassignable "$network" "$edu" "$testdev"
    same "$(driver "$network") $(driver "$edu") $(driver "$testdev")" "e1000e none none"
    same "$(cat "$pci/drivers/pciback/slots")" ""
    same "$(xenstore-ls /local/domain/0/backend/pci 2>/dev/null)" ""
}

no_record_is_left() { same "$(xenstore-ls /libxl/pci 2>/dev/null)" ""; }

check three_cards_become_assignable three_cards_become_assignable
check the_hypervisor_is_as_simulated the_hypervisor_is_as_simulated
check a_transaction_for_each_device_gives_a_part a_transaction_for_each_device_gives_a_part
[ "$(cat /toolstack)" = xl ] || check guests_of_other_kinds_are_refused guests_of_other_kinds_are_refused
check a_guest_is_made a_guest_is_made
check it_gets_the_set_before_it_starts_and_uses_all_of_it it_gets_the_set_before_it_starts_and_uses_all_of_it
check a_card_is_taken_while_it_runs a_card_is_taken_while_it_runs
check and_given_again and_given_again
check a_virtual_function_is_given a_virtual_function_is_given
# xl takes it from under the guest.
[ "$(cat /toolstack)" = xl ] || check the_host_cannot_have_it_meanwhile the_host_cannot_have_it_meanwhile
check the_guest_is_destroyed_and_all_is_as_before the_guest_is_destroyed_and_all_is_as_before
# xl leaves an empty folder for each card.
[ "$(cat /toolstack)" = xl ] || check no_record_is_left no_record_is_left
exit $failed
