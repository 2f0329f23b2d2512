# Real Xen: a hypervisor, a domain 0 and a paravirtualised guest of Debian's, in an emulated machine with an IOMMU. The command
# gives the guest emulated cards through xen-pciback, and takes them back.
#
#   PCIDEVS_TOOLSTACK=xl   lets xl do the same, where it can: what the bed itself is worth

. "$here/machine.sh"

xen=4.17

fetch() {
    local release
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    if ! [ -e "$kept/qemu/complete" ] || ! [ -e "$kept/kernel/complete" ] || ! [ -e "$kept/xen/complete" ]; then
        configure_apt
    fi
    # igb, whose driver makes virtual functions, came to QEMU in version 8: it is taken from backports.
    [ -e "$kept/qemu/complete" ] || unpack "$kept/qemu" -t "$release-backports" \
        $(with_dependencies -t "$release-backports" qemu-system-x86)
    [ -e "$kept/kernel/complete" ] || unpack "$kept/kernel" "$(kernel_package)" busybox-static kmod xz-utils
    unpack "$kept/xen" xen-hypervisor-$xen-amd64 xen-utils-$xen xen-utils-common xenstore-utils libxenstore4 \
        libxenmisc$xen libxencall1 libxendevicemodel1 libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxenhypfs1 \
        libxentoolcore1 libxentoollog1 libyajl2 libfdt1 libnl-3-200 libnl-route-3-200
}

build() {
    cargo build --features cli,xen --bin pcidevs
    strip -o "$kept/pcidevs" "${CARGO_TARGET_DIR:-$PWD/target}/debug/pcidevs"
    # The tests of src/xen, for what they ask of a real hypervisor.
    cargo test --features cli,xen --test xen --no-run
    strip -o "$kept/tests" "$(cargo test --features cli,xen --test xen --no-run --message-format=short 2>&1 |
        sed -n 's/.*Executable .*(\(.*\))$/\1/p')"
}

# The guest: busybox, the front end, drivers for the cards.
make_guest() {
    local image=$kept/guest
    rm -rf "$image"
    mkdir -p "$image"/{bin,proc,sys,dev,tmp}
    cp "$busybox" "$image/bin/busybox"
    copy_modules "$kept/kernel/root" "$image" xen-pcifront e1000e igbvf
    cp "$here/xen/guest.sh" "$image/init"
    chmod +x "$image/init"
    pack "$image" "$kept/guest.img"
}

# Domain 0: busybox, Xen's tools with the libraries they need, drivers, the guest, our command.
make_host() {
    local image=$kept/host root=$kept/xen/root program libraries
    libraries=$root/usr/lib/x86_64-linux-gnu:$root/usr/lib/xen-$xen/lib/x86_64-linux-gnu
    rm -rf "$image"
    mkdir -p "$image"/{bin,proc,sys,dev,tmp,run,boot,lib64,lib/x86_64-linux-gnu,usr/lib,etc/xen,xen/bin} \
        "$image"/var/{lib/xen,lib/xenstored,log/xen/console}
    ln -s ../run "$image/var/run"
    cp "$busybox" "$image/bin/busybox"
    cp "$kept/pcidevs" "$kept/tests" "$image/bin/"
    for program in xl xenstored xenconsoled xen-init-dom0; do cp "$root/usr/lib/xen-$xen/bin/$program" "$image/xen/bin/"; done
    cp "$root/usr/bin/xenstore" "$image/xen/bin/"
    for program in ls read write rm chmod; do ln -s xenstore "$image/xen/bin/xenstore-$program"; done
    # Where libxl looks for its helpers.
    ln -s /xen "$image/usr/lib/xen-$xen"
    cp -r "$root/etc/xen/scripts" "$image/etc/xen/"
    : >"$image/etc/xen/xl.conf"
    cp -L "$root"/usr/lib/x86_64-linux-gnu/libxenctrl.so.$xen "$image/lib/x86_64-linux-gnu/"
    # The last one ends threads, and is loaded only then.
    copy_libraries "$libraries" "$image" "$image"/xen/bin/{xl,xenstored,xenconsoled,xen-init-dom0,xenstore} \
        "$image"/bin/{pcidevs,tests} "$image"/lib/x86_64-linux-gnu/libxenctrl.so.$xen
    cp -L /lib/x86_64-linux-gnu/libgcc_s.so.1 "$image/lib/x86_64-linux-gnu/"
    copy_modules "$kept/kernel/root" "$image" xen-pciback xen-gntdev xen-gntalloc xen-evtchn xen-privcmd xenfs e1000e igb
    cp "$kept/vmlinux" "$image/boot/"
    cp "$kept/guest.img" "$kept/still" "$image/boot/"
    cp "$here"/xen/{checks,toolstack}.sh "$image/"
    echo "${PCIDEVS_TOOLSTACK:-pcidevs}" >"$image/toolstack"
    cp "$here/xen/host.sh" "$image/init"
    chmod +x "$image/init"
    pack "$image" "$kept/host.img"
}

# A machine with an IOMMU, a card alone on its port (e1000e), one that makes virtual functions (igb), and two that are made for
# tests and have no driver (edu, pci-testdev). The cards' other end is QEMU itself, which answers a ping.
boot() {
    emulate "$kept/qemu/root" -machine q35,kernel-irqchip=split,vmport=off,smbus=off,sata=off \
        -accel tcg,thread=multi -cpu qemu64,+npt -smp 1 -m "${PCIDEVS_MEMORY:-900}" \
        -device intel-iommu,intremap=on,caching-mode=on \
        -device pcie-root-port,id=port1,chassis=1,slot=1,bus=pcie.0 \
        -device pcie-root-port,id=port2,chassis=2,slot=2,bus=pcie.0 \
        -netdev user,id=net1,restrict=on -device e1000e,bus=port1,netdev=net1 \
        -netdev user,id=net2,restrict=on -device igb,bus=port2,netdev=net2 \
        -device edu -device pci-testdev \
        -kernel "$kept/hypervisor" \
        -append "console=com1 com1=115200,8n1 dom0_mem=480M,max:480M noreboot loglvl=warning guest_loglvl=warning" \
        -initrd "$kept/vmlinux console=hvc0 earlyprintk=xen quiet panic=-1,$kept/host.img"
}

run() {
    local limit=${PCIDEVS_LIMIT:-580} busybox xz tools
    command -v cc >/dev/null || skip "there is no C compiler"
    [ "$(uname -m)" = x86_64 ] || skip "it emulates this machine's kind, and knows x86_64"
    mkdir -p "$kept"
    fetch
    find_tools "$kept/kernel/root"
    build
    gzip -dc "$kept"/xen/root/boot/xen-$xen-amd64.gz >"$kept/hypervisor"
    [ -e "$kept/vmlinux" ] || extract_kernel "$kept"/kernel/root/boot/vmlinuz-* "$kept/vmlinux"
    # A guest that never runs need not be Linux.
    cc -nostdlib -static -no-pie -Wl,-Ttext-segment=0x100000 -Wl,--build-id=none -o "$kept/still" "$here/xen/still.S"
    make_guest
    make_host
    boot | sed -u 's|\r||g' | tee "$kept/log" | grep --line-buffered -E '^==|: (ok|FAILED)|^    ' || true
    # A machine that hangs or dies says no end.
    if grep -q ': FAILED' "$kept/log" || ! grep -q '^== end 0$' "$kept/log"; then
        echo "== failed; all that it said is in $kept/log"
        return 1
    fi
}
