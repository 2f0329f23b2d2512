# What the command promises, on a real kernel: each check prints its name and what came of it.
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

# Runs a check in a process of its own, with a limit on its time.
check() {
    local name=$1
    shift
    # Not as a condition: `set -e` has no effect in one.
    (set -e; "$@") >/tmp/said 2>&1
    if [ $? -eq 0 ]; then
        echo "$name: ok"
    else
        echo "$name: FAILED"
        sed 's/^/    /' /tmp/said
        failed=1
    fi
}

same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }

card=$(functions 0x8086:0x10d3 | head -1)

detach_and_reattach() {
    local before
    before="$(driver "$card") $(override "$card")"
    timeout 60 pcidevs detach "$card"
    same "$(driver "$card")" vfio-pci
    same "$(override "$card")" vfio-pci
    timeout 60 pcidevs reattach "$card"
    same "$(driver "$card") $(override "$card")" "$before"
}

for device in "$pci"/devices/*; do
    name=$(basename "$device")
    echo "$name $(cat "$device/vendor"):$(cat "$device/device") $(driver "$name") $(group "$name")" \
        "[$(cat "$device/reset_method" 2>/dev/null)] $(cat "$device/sriov_totalvfs" 2>/dev/null)"
done
check a_card_is_detached_and_reattached detach_and_reattach
exit $failed
