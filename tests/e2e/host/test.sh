# The host manager on real kernels: guests of Debian's kernels in an emulated machine with an emulated IOMMU, where the
# same command and the same suite move emulated cards by the kernels' own sysfs and VFIO.
#
#   PCIDEVS_KERNELS="stable backports"   which of Debian's kernels; both unless said otherwise

# What the guest's kernel needs as modules.
modules="vfio vfio_iommu_type1 vfio-pci e1000 e1000e igb nvme pci-stub"

# A private configuration of apt: the machine's own Debian sources, and the backports of its release.
configure_apt() {
    local apt=$kept/apt release
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$release" ] || skip "this is no Debian"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts"
    if [ -f /etc/apt/sources.list.d/debian.sources ]; then
        sed -E "/^Suites:/s/ $release( |\$)/ $release $release-backports\1/" \
            /etc/apt/sources.list.d/debian.sources >"$apt/parts/debian.sources"
    fi
    if [ -f /etc/apt/sources.list ]; then
        sed -nE "p;s/^(deb .* )$release( .*)/\1$release-backports\2/p" /etc/apt/sources.list >"$apt/parts/debian.list"
    fi
    cat >"$apt/apt.conf" <<-END
	Dir::Etc::SourceParts "$apt/parts";
	Dir::Etc::SourceList "/dev/null";
	Dir::State::Lists "$apt/lists";
	Dir::Cache "$apt/cache";
	APT::Sandbox::User "root";
	APT::Default-Release "$release-backports";
	END
    export APT_CONFIG=$apt/apt.conf
    [ -e "$kept/qemu/complete" ] && [ -e "$kept/backports/complete" ] && [ -e "$kept/stable/complete" ] && return
    timeout 120 apt-get update -qq || skip "the lists of packages cannot be fetched"
}

# What installing these would add here.
with_dependencies() {
    apt-get install -s --no-install-recommends "$@" | awk '/^Inst/ { print $2 }'
}

# igb, whose driver makes virtual functions, came to QEMU in version 8: it is taken from backports.
fetch() {
    local release
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    [ -e "$kept/qemu/complete" ] ||
        unpack "$kept/qemu" $(with_dependencies qemu-system-x86) busybox-static kmod
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
    local kernel=$1 image=$kept/image version root=$kept/qemu/root folder
    folder=$kept/$kernel/root
    version=$(ls "$folder/lib/modules")
    rm -rf "$image"
    mkdir -p "$image"/{bin,proc,sys,dev,tmp,run} "$image/lib/modules/$version"
    cp "$(find "$root" -path '*bin/busybox')" "$image/bin/busybox"
    ln -sf kmod "$kept/depmod"
    cp "$(find "$root" -name kmod -path '*bin*' -type f)" "$kept/kmod"
    "$kept/depmod" -b "$folder" "$version"
    local module file
    for module in $modules; do
        awk -v name="$module" '
            { path = $1; sub(":", "", path); plain = path; gsub("-", "_", plain); gsub("-", "_", name) }
            plain ~ "/" name "\\.ko(\\.xz)?$" { for (i = NF; i > 1; i--) print $i; print path }
        ' "$folder/lib/modules/$version/modules.dep"
    done | sort -u | while read -r file; do
        mkdir -p "$image/lib/modules/$version/$(dirname "$file")"
        case $file in
            *.xz) xz -dc "$folder/lib/modules/$version/$file" >"$image/lib/modules/$version/${file%.xz}" ;;
            *) cp "$folder/lib/modules/$version/$file" "$image/lib/modules/$version/$file" ;;
        esac
    done
    cp "$folder/lib/modules/$version/modules.builtin" "$folder/lib/modules/$version/modules.builtin.modinfo" \
        "$folder/lib/modules/$version/modules.order" "$image/lib/modules/$version/"
    "$kept/depmod" -b "$image" "$version"
    cp "$kept"/bin/* "$image/bin/"
    cp "$here/host/init.sh" "$image/init"
    cp "$here"/host/checks.sh "$image/"
    chmod +x "$image/init"
    (cd "$image" && find . | "$image/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$kept/$kernel.img"
}

# A machine with an IOMMU: a card alone on its port (e1000e), one that makes virtual functions (igb), a disk that does
# (nvme), two old cards in one group behind a bridge to conventional PCI, a card of two functions, and one of two that
# only their bus resets.
boot() {
    local kernel=$1 root=$kept/qemu/root port ports=()
    for port in 1 2 3 4 5 6; do
        ports+=(-device "pcie-root-port,id=port$port,chassis=$port,slot=$port,bus=pcie.0")
    done
    truncate -s 16M "$kept/disk"
    LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu timeout --foreground "$limit" \
        "$root/usr/bin/qemu-system-x86_64" \
        -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" \
        -machine q35,kernel-irqchip=split,vmport=off,smbus=off,sata=off -accel tcg,thread=multi -cpu max -smp 1 -m 640 \
        -nodefaults -no-user-config -display none -no-reboot -serial stdio -monitor none \
        -device intel-iommu,intremap=on,caching-mode=on "${ports[@]}" \
        -device e1000e,bus=port1 -device igb,bus=port2 \
        -drive "file=$kept/disk,format=raw,if=none,id=disk" -device nvme-subsys,id=subsystem \
        -device nvme,id=nvme,serial=x,subsys=subsystem,bus=port3,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4,max_ioqpairs=12,msix_qsize=9 \
        -device nvme-ns,drive=disk,bus=nvme,nsid=1 \
        -device pcie-pci-bridge,id=old,bus=port4 -device e1000,bus=old,addr=1 -device e1000,bus=old,addr=2 \
        -device e1000e,bus=port5,addr=0.0,multifunction=on -device e1000e,bus=port5,addr=0.1 \
        -device e1000,bus=port6,addr=0.0,multifunction=on -device e1000,bus=port6,addr=0.1 \
        -kernel "$(ls "$kept/$kernel"/root/boot/vmlinuz-*)" -initrd "$kept/$kernel.img" \
        -append "console=ttyS0 quiet intel_iommu=on panic=-1 tsc=reliable" </dev/null
}

run() {
    local kernels=${PCIDEVS_KERNELS:-stable backports} limit=${PCIDEVS_LIMIT:-240} kernel failed=
    [ "$(uname -m)" = x86_64 ] || skip "it emulates this machine's kind, and knows x86_64"
    mkdir -p "$kept"
    configure_apt
    fetch
    build
    for kernel in $kernels; do
        make_image "$kernel"
        boot "$kernel" | tr -d '\r' | tee "$kept/$kernel.log" |
            sed -unE '/^==/p; /^[a-z_]+: (ok|FAILED)/p; s/^test (same::.*) \.\.\. (ok|FAILED)$/\1: \2/p' || true
        # A guest that hangs or dies says no end.
        if grep -qE '(:|\.\.\.) FAILED' "$kept/$kernel.log" || ! grep -q '^== end 0$' "$kept/$kernel.log"; then
            failed="$failed $kernel"
            echo "== $kernel failed; all that it said is in $kept/$kernel.log"
        fi
    done
    [ -z "$failed" ]
}
