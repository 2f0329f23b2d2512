#!/bin/busybox sh
# The first process of the guest: says what cards it has whenever that changes, and uses each of them.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
exec </dev/null >/dev/hvc0 2>&1
pci=/sys/bus/pci/devices
cards() { ls "$pci" 2>/dev/null | tr '\n' ' '; }

# Start and end of a card's region, from 0 on.
region() { sed -n "$(($2 + 1))p" "$pci/$1/resource" | { read -r start end flags; echo "$start"; }; }
memory() { devmem $(($(region "$1" 0) + $2)) "$3" $4; }

# edu: its register 4 inverts what is written there.
edu() {
    echo 1 >"$pci/$1/enable"
    memory "$1" 4 32 0x12345678
    [ "$(memory "$1" 4 32)" = 0xEDCBA987 ]
}

# pci-testdev: says the name of a test that is chosen, in memory ("mmio…") and through ports ("port…").
testdev() {
    echo 1 >"$pci/$1/enable"
    memory "$1" 0 8 0
    [ "$(memory "$1" 16 32)" = 0x6F696D6D ] || return 1
    local port=$(($(region "$1" 1)))
    printf '\000' | dd of=/dev/port bs=1 seek="$port" conv=notrunc 2>/dev/null
    [ "$(dd if=/dev/port bs=1 skip=$((port + 16)) count=4 2>/dev/null)" = port ]
}

# A network card: what is at its other end answers, so interrupts arrive and its DMA ends in this guest's memory.
network() {
    local tries=0 interface
    while [ ! -e "$pci/$1/net" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 20 ] || return 1
        sleep 0.2
    done
    interface=$(ls "$pci/$1/net")
    ip link set "$interface" up
    ip addr add 10.0.2.15/24 dev "$interface"
    tries=0
    until ping -c 1 -W 1 -I "$interface" 10.0.2.2 >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 12 ] || return 1
        sleep 0.3
    done
    ip addr flush dev "$interface"
    ip link set "$interface" down
}

use() {
    case $(cat "$pci/$1/vendor"):$(cat "$pci/$1/device") in
        0x8086:0x10d3) network "$1" && echo network ;;
        0x8086:0x10ca) network "$1" && echo virtual ;;
        0x1234:0x11e8) edu "$1" && echo edu ;;
        0x1b36:0x0005) testdev "$1" && echo testdev ;;
    esac 2>/tmp/said || echo "broken($(cat "$pci/$1/vendor"):$(cat "$pci/$1/device") $(tr '\n' ' ' </tmp/said))"
}

modprobe e1000e
modprobe igbvf
modprobe xen-pcifront
echo "guest: up, Linux $(uname -r)"
before=
while :; do
    # A bus is scanned card after card: what it has is what it has for a moment.
    now=$(cards)
    sleep 0.5
    [ "$now" = "$(cards)" ] || continue
    if [ "$now" != "$before" ]; then
        uses=$(for card in $now; do use "$card"; done | sort | tr '\n' ' ')
        echo "guest: uses $uses"
        before=$now
    fi
done
