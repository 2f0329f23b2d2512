# What the command promises, on a real kernel, and then the suite: each check prints its name and what came of it.
pci=/sys/bus/pci
failed=0

driver() { basename "$(readlink "$pci/devices/$1/driver" || echo none)"; }
group() { basename "$(readlink "$pci/devices/$1/iommu_group")"; }
override() { cat "$pci/devices/$1/driver_override"; }

# The functions of an ID, in order.
functions() {
    for device in "$pci"/devices/*; do
        [ "$(cat "$device/vendor"):$(cat "$device/device")" = "$1" ] && basename "$device"
    done
}

# Runs a check in a process of its own, for a minute at most.
check() {
    local name=$1 tries=0 process
    # Not as a condition: `set -e` has no effect in one.
    (set -e; "$name") >/tmp/said 2>&1 </dev/null &
    process=$!
    while kill -0 $process 2>/dev/null && [ $tries -lt 600 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    if [ $tries -eq 600 ]; then
        echo "it hangs" >>/tmp/said
        kill -9 $process
    fi
    if wait $process; then
        echo "$name: ok"
    else
        echo "$name: FAILED"
        sed 's/^/    /' /tmp/said
        failed=1
    fi
}

same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }
has() { case $1 in *"$2"*) ;; *) echo "no '$2' in '$1'"; return 1 ;; esac; }

# Waits for a file to say something.
await() {
    local tries=0
    until grep -q "$2" "$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "$1 does not say '$2': $(cat "$1")"; return 1; }
        sleep 0.1
    done
}

# Every command has a limit.
pcidevs() { timeout 60 /bin/pcidevs "$@"; }

# A guest that has a device open until it is killed.
open_device() {
    rm -f /tmp/held
    # A pipe whose other end it has itself never ends.
    [ -e /tmp/pipe ] || mkfifo /tmp/pipe
    holder device "$(group "$1")" "$1" $2 <>/tmp/pipe >/tmp/held 2>&1 &
    holder=$!
    await /tmp/held open
}
close_device() {
    kill -9 "$holder" || true
    wait "$holder" || true
}

at_home() { echo "$(driver "$1") $(override "$1")"; }

detach_and_reattach() {
    local before
    before=$(at_home "$card")
    # The manager loads VFIO.
    same "$(ls "$pci/drivers" | grep -c vfio)" 0
    pcidevs detach "$card"
    same "$(at_home "$card")" "vfio-pci vfio-pci"
    has "$(pcidevs status "$card")" detached
    pcidevs reattach "$card"
    same "$(at_home "$card")" "$before"
}

dry_run_writes_nothing() {
    local before
    before=$(at_home "$card")
    has "$(pcidevs detach --dry-run "$card")" unbind
    same "$(at_home "$card")" "$before"
}

attach_and_release() {
    local before
    before=$(at_home "$card")
    pcidevs attach --guest vm "$card"
    has "$(pcidevs status --json "$card")" '"guest":"vm"'
    open_device "$card"
    close_device
    pcidevs release --guest vm "$card"
    same "$(at_home "$card")" "$before"
}

another_guest_is_refused() {
    pcidevs attach --guest vm "$card"
    has "$(pcidevs attach --guest other "$card" 2>&1 || true)" "in use by vm"
    has "$(pcidevs release --guest other "$card" 2>&1 || true)" "not with other"
    pcidevs release --guest vm "$card"
}

rebinding_waits_until_the_guest_closes() {
    local before
    before=$(at_home "$card")
    pcidevs attach --guest vm "$card"
    open_device "$card"
    has "$(pcidevs release --guest vm --wait 1 "$card" || true)" waits
    same "$(driver "$card")" vfio-pci
    pcidevs reattach --wait 30 "$card" >/tmp/waiting 2>&1 &
    sleep 1
    same "$(driver "$card")" vfio-pci
    close_device
    wait $!
    same "$(at_home "$card")" "$before"
}

status_answers_while_an_unbind_is_stuck() {
    local before unbind
    before=$(at_home "$card")
    pcidevs attach --guest vm "$card"
    open_device "$card"
    echo "$card" >"$pci/drivers/vfio-pci/unbind" &
    unbind=$!
    sleep 1
    # It hangs, and took the link along.
    kill -0 $unbind
    same "$(driver "$card")" none
    has "$(pcidevs status "$card")" "guest vm"
    pcidevs status >/tmp/all
    pcidevs detach "$other"
    pcidevs reattach "$other"
    has "$(pcidevs release --guest vm --wait 0 "$card" || true)" waits
    close_device
    wait $unbind
    pcidevs reattach "$card"
    same "$(at_home "$card")" "$before"
}

a_polite_guest_gives_back_what_somebody_unbinds() {
    pcidevs attach --guest vm "$card"
    open_device "$card" polite
    # The kernel asks the guest, which closes the device, and then it ends.
    timeout 30 sh -c "echo $card >$pci/drivers/vfio-pci/unbind"
    close_device
    pcidevs release --guest vm "$card"
    same "$(driver "$card")" e1000e
}

killed_while_it_waits_for_a_guest() {
    local before waiting
    before=$(at_home "$card")
    pcidevs attach --guest vm "$card"
    open_device "$card"
    /bin/pcidevs release --guest vm --wait 60 "$card" >/dev/null 2>&1 &
    waiting=$!
    local tries=0
    until /bin/pcidevs status "$card" | grep -q deferred; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ]
        sleep 0.1
    done
    kill -9 $waiting
    wait $waiting || true
    pcidevs recover
    has "$(pcidevs status "$card")" deferred
    same "$(driver "$card")" vfio-pci
    close_device
    pcidevs reattach "$card"
    same "$(at_home "$card")" "$before"
}

killed_at_any_moment() {
    local before delay attach
    before=$(at_home "$card")
    for delay in 0.05 0.1 0.15 0.2 0.3 0.4; do
        /bin/pcidevs attach --guest vm "$card" >/dev/null 2>&1 &
        attach=$!
        sleep $delay
        kill -9 $attach 2>/dev/null || true
        wait $attach || true
        echo "after $delay s: $(at_home "$card")"
        pcidevs recover
        # Either it has not happened, or it has.
        if pcidevs status "$card" | grep -q "guest vm"; then
            pcidevs release --guest vm "$card"
        fi
        same "$(at_home "$card")" "$before"
    done
}

a_set_is_moved_whole() {
    local before
    before="$(at_home "$card") $(at_home "$other")"
    pcidevs attach --guest vm "$card" "$other"
    pcidevs release --guest vm "$card" "$other"
    same "$(at_home "$card") $(at_home "$other")" "$before"
}

# The kernel says an address only over netlink, where the command looks: it believes no driver without looking again.
a_virtual_function_gets_its_address_and_gives_it_back() {
    echo 0 >"$pci/devices/$other/sriov_drivers_autoprobe"
    echo 2 >"$pci/devices/$other/sriov_numvfs"
    local function
    function=$(basename "$(readlink "$pci/devices/$other/virtfn1")")
    pcidevs attach --guest web --mac 02:00:00:00:00:07 --vlan 5 "$function"
    has "$(pcidevs status --json "$function")" 02:00:00:00:00:07
    same "$(driver "$function")" vfio-pci
    pcidevs release --guest web "$function"
    same "$(driver "$function")" none
    echo 0 >"$pci/devices/$other/sriov_numvfs"
    echo 1 >"$pci/devices/$other/sriov_drivers_autoprobe"
}

nothing_is_left_over() {
    has "$(pcidevs status --json)" '"ok":true'
    same "$(pcidevs status | grep -vc ' host')" 0
}

# The cards by their IDs: three functions of e1000e, one alone and two of one card; four of e1000, two and two.
e1000e=$(functions 0x8086:0x10d3)
e1000=$(functions 0x8086:0x100e)
nth() { echo "$2" | sed -n "$1p"; }
card=$(nth 1 "$e1000e")
other=$(functions 0x8086:0x10c9 | head -1)

for device in "$pci"/devices/*; do
    name=$(basename "$device")
    echo "$name $(cat "$device/vendor"):$(cat "$device/device") $(driver "$name") $(group "$name")" \
        "[$(cat "$device/reset_method" 2>/dev/null)] $(cat "$device/sriov_totalvfs" 2>/dev/null)"
done

check detach_and_reattach
check dry_run_writes_nothing
check attach_and_release
check another_guest_is_refused
check a_set_is_moved_whole
check rebinding_waits_until_the_guest_closes
check status_answers_while_an_unbind_is_stuck
check a_polite_guest_gives_back_what_somebody_unbinds
check killed_while_it_waits_for_a_guest
check killed_at_any_moment
check a_virtual_function_gets_its_address_and_gives_it_back
check nothing_is_left_over

export PCIDEVS_RIG="card=$card/e1000e other=$other/igb pf=$(functions 0x1b36:0x0010 | head -1)/nvme
    port=$(nth 2 "$e1000e")/e1000e port=$(nth 3 "$e1000e")/e1000e
    old=$(nth 1 "$e1000")/e1000 old=$(nth 2 "$e1000")/e1000
    pair=$(nth 3 "$e1000")/e1000 pair=$(nth 4 "$e1000")/e1000
    bridge=$(functions 0x1b36:0x000e)/"
# Its lines are "test NAME ... ok".
timeout 240 suite same:: --include-ignored --skip dies --test-threads=1 2>&1 || failed=1
exit $failed
