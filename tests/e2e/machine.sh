# Emulated machines for the end-to-end tests: where QEMU comes from, and file systems for what it boots. To be sourced
# after `unpack` and `skip`.

# A private configuration of apt: the machine's own Debian sources, and the backports of its release.
configure_apt() {
    local apt=$kept/apt release
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    command -v apt-get >/dev/null && [ -n "$release" ] || skip "this is no Debian"
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
	END
    export APT_CONFIG=$apt/apt.conf
    timeout 120 apt-get update -qq || skip "the lists of packages cannot be fetched"
}

# What installing these would add here.
with_dependencies() {
    apt-get install -s --no-install-recommends "$@" | awk '/^Inst/ { print $2 }'
}

# The name of the package that has the kernel itself.
kernel_package() {
    apt-cache depends linux-image-amd64 | awk '/Depends/ { print $2; exit }'
}

# A kernel as the ELF file inside: who boots it need not unpack it, which takes seconds when emulated. The boot protocol says
# where it is in the file (Linux, Documentation/arch/x86/boot.rst).
extract_kernel() {
    local file=$1 into=$2 sectors offset length
    sectors=$(od -An -tu1 -j $((0x1f1)) -N1 "$file")
    offset=$(od -An -tu4 -j $((0x248)) -N4 "$file")
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$file")
    # Its last four bytes are the size of what is in it.
    tail -c +$(((sectors + 1) * 512 + offset + 1)) "$file" | { head -c $((length - 4)); cat >/dev/null; } |
        "$xz" -dc >"$into"
    [ "$(head -c 4 "$into" | od -An -c | tr -d ' ')" = '177ELF' ]
}

# Copies modules of an unpacked kernel, and what they need, into a guest's file system.
copy_modules() {
    local kernel=$1 image=$2 version module file
    shift 2
    version=$(ls "$kernel/lib/modules")
    [ -e "$kernel/lib/modules/$version/modules.dep" ] || "$tools/depmod" -b "$kernel" "$version"
    mkdir -p "$image/lib/modules/$version"
    for module in "$@"; do
        "$tools/modprobe" -d "$kernel" -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | sort -u | while read -r file; do
        file=${file#"$kernel"/}
        mkdir -p "$image/$(dirname "$file")"
        cp "$kernel/$file" "$image/$file"
    done
    cp "$kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$image/lib/modules/$version/"
    "$tools/depmod" -b "$image" "$version"
}

# What is needed of an unpacked folder. kmod goes by several names; the links of its package point into the machine itself.
find_tools() {
    local root=$1
    busybox=$(find "$root" -path '*bin/busybox')
    xz=$(find "$root" -path "*bin/xz")
    tools=$kept/tools
    mkdir -p "$tools"
    cp "$(find "$root" -name kmod -path '*bin*' -type f)" "$tools/depmod"
    ln -sf depmod "$tools/modprobe"
}

# Copies the libraries that programs need into a guest's file system.
copy_libraries() {
    local path=$1 image=$2 program library
    shift 2
    for program in "$@"; do
        LD_LIBRARY_PATH=$path ldd "$program"
    done | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/lib64/ { print $1 }' | sort -u | while read -r library; do
        case $library in
            /lib64/*) cp -L "$library" "$image/lib64/" ;;
            *) cp -L "$library" "$image/lib/x86_64-linux-gnu/" ;;
        esac
    done
}

# A folder as a file system that a kernel unpacks into memory.
pack() {
    (cd "$1" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$2"
}

# QEMU of an unpacked folder.
emulate() {
    local root=$1
    shift
    LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu \
        QEMU_MODULE_DIR=$root/usr/lib/x86_64-linux-gnu/qemu \
        timeout --foreground "$limit" "$root/usr/bin/qemu-system-x86_64" \
        -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" \
        -nodefaults -no-user-config -display none -no-reboot -serial stdio -monitor none "$@" </dev/null
}
