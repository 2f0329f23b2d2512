# The host manager on real kernels: guests of Debian's kernels in an emulated machine with an emulated IOMMU, where the
# same command and the same suite move emulated cards by the kernels' own sysfs and VFIO.
#
#   PCIDEVS_KERNELS="stable backports"   which of Debian's kernels; both unless said otherwise

# What the guest's kernel needs as modules.
modules="vfio vfio_iommu_type1 vfio-pci e1000 e1000e igb nvme pci-stub"

. "$here/machine.sh"

fetch() {
    local release kernel from
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    if ! [ -e "$kept/qemu/complete" ] || ! [ -e "$kept/stable/complete" ] || ! [ -e "$kept/backports/complete" ]; then
        configure_apt
    fi
    # igb, whose driver makes virtual functions, came to QEMU in version 8: it is taken from backports.
    [ -e "$kept/qemu/complete" ] || unpack "$kept/qemu" -t "$release-backports" \
        $(with_dependencies -t "$release-backports" qemu-system-x86) busybox-static kmod
    for kernel in $kernels; do
        [ ! -e "$kept/$kernel/complete" ] || continue
        case $kernel in
            stable) from=$release ;;
            backports) from=$release-backports ;;
        esac
        unpack "$kept/$kernel" "$(apt-cache depends -t "$from" linux-image-amd64 | awk '/Depends/ { print $2; exit }')"
    done
}

# Programs for a guest that has no libraries.
build() {
    local target=x86_64-unknown-linux-gnu
    export RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_DEV_DEBUG=0
    cargo build --features cli --bin pcidevs --target "$target"
    cargo build --manifest-path "$here/host/holder/Cargo.toml" --target-dir "$kept/holder" --target "$target"
    mkdir -p "$kept/bin"
    local suite
    suite=$(cargo test --features host --test host --target "$target" --no-run --message-format json |
        sed -n 's/.*"executable":"\([^"]*host-[^"]*\)".*/\1/p')
    strip -o "$kept/bin/pcidevs" "${CARGO_TARGET_DIR:-$PWD/target}/$target/debug/pcidevs"
    strip -o "$kept/bin/suite" "$suite"
    strip -o "$kept/bin/holder" "$kept/holder/$target/debug/pcidevs-holder"
}

# The guest's whole file system: busybox, modules, our programs, and what to do with them.
make_image() {
    local kernel=$1 image=$kept/image
    find_tools "$kept/qemu/root"
    rm -rf "$image"
    mkdir -p "$image"/{bin,proc,sys,dev,tmp,run}
    cp "$busybox" "$image/bin/busybox"
    copy_modules "$kept/$kernel/root" "$image" $modules
    # Newer kernels' modules are packed, and the guest's busybox may not unpack them.
    if [ -n "$(find "$image/lib/modules" -name '*.ko.xz')" ]; then
        find "$image/lib/modules" -name '*.ko.xz' -exec "$busybox" unxz {} +
        "$tools/depmod" -b "$image" "$(ls "$image/lib/modules")"
    fi
    cp "$kept"/bin/* "$image/bin/"
    cp "$here/host/init.sh" "$image/init"
    cp "$here/host/checks.sh" "$image/"
    chmod +x "$image/init"
    pack "$image" "$kept/$kernel.img"
}

# A machine with an IOMMU: a card alone on its port (e1000e), one that makes virtual functions (igb), a disk that does
# (nvme), two old cards in one group behind a bridge to conventional PCI, a card of two functions, and one of two that
# only their bus resets.
boot() {
    local kernel=$1 root=$kept/qemu/root port ports=()
    for port in 1 2 3 4 5 6; do
        ports+=(-device "pcie-root-port,id=port$port,chassis=$port,slot=$port,bus=pcie.0")
    done
    truncate -s 16M "$kept/$kernel.disk"
    # The kernel's check of its timer counts ticks, and fails where this machine is busy with other things.
    emulate "$root" \
        -machine q35,kernel-irqchip=split,vmport=off,smbus=off,sata=off -accel tcg,thread=multi -cpu max -smp 1 -m 640 \
        -device intel-iommu,intremap=on,caching-mode=on "${ports[@]}" \
        -device e1000e,bus=port1 -device igb,bus=port2 \
        -drive "file=$kept/$kernel.disk,format=raw,if=none,id=disk" -device nvme-subsys,id=subsystem \
        -device nvme,id=nvme,serial=x,subsys=subsystem,bus=port3,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=12,msix_qsize=9 \
        -device nvme-ns,drive=disk,bus=nvme,nsid=1 \
        -device pcie-pci-bridge,id=old,bus=port4 -device e1000,bus=old,addr=1 -device e1000,bus=old,addr=2 \
        -device e1000e,bus=port5,addr=0.0,multifunction=on -device e1000e,bus=port5,addr=0.1 \
        -device e1000,bus=port6,addr=0.0,multifunction=on -device e1000,bus=port6,addr=0.1 \
        -kernel "$(ls "$kept/$kernel"/root/boot/vmlinuz-*)" -initrd "$kept/$kernel.img" \
        -append "console=ttyS0 quiet intel_iommu=on panic=-1 tsc=reliable no_timer_check"
}

# One kernel's run: what comes of each check, as it comes; the rest is in the log.
try() {
    local kernel=$1 log=$kept/$1.log
    boot "$kernel" | sed -u 's/\r//g' | tee "$log" | sed -unE "
        s/^== (kernel .*)/$kernel: \1/p
        s/^([a-z_]+): (ok|FAILED)$/$kernel: \1: \2/p
        s/^test (same::.*) \.\.\. (ok|FAILED)$/$kernel: \1: \2/p" || true
    # A guest that hangs or dies says no end.
    if ! grep -q '^== end 0$' "$log" || grep -qE '(:|\.\.\.) FAILED' "$log"; then
        echo "$kernel: FAILED; all that it said is in $log, and its end is:"
        tail -n 40 "$log"
        return 1
    fi
}

run() {
    local kernels=${PCIDEVS_KERNELS:-stable backports} limit=${PCIDEVS_LIMIT:-280} kernel runs=() failed=0
    [ "$(uname -m)" = x86_64 ] || skip "it emulates this machine's kind, and knows x86_64"
    mkdir -p "$kept"
    fetch
    build
    # Each has one processor, so they run side by side.
    for kernel in $kernels; do
        make_image "$kernel"
        try "$kernel" &
        runs+=($!)
    done
    for kernel in "${runs[@]}"; do
        wait "$kernel" || failed=1
    done
    [ $failed -eq 0 ]
}
