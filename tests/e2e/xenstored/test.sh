# The real xenstored without Xen: a shim stands in for the libraries by which it would talk to the hypervisor.
. "$here/machine.sh"

run() {
    command -v cc >/dev/null || skip "there is no C compiler"
    [ -e "$kept/complete" ] || configure_apt
    unpack "$kept" xen-utils-4.17 libxenstore4 libxenmisc4.17 libxencall1 libxendevicemodel1 libxenevtchn1 \
        libxenforeignmemory1 libxengnttab1 libxenhypfs1 libxentoolcore1 libxentoollog1
    cc -shared -fPIC -O1 -Wall -o "$kept/shim.so" "$here/xenstored/shim.c"
    PCIDEVS_XENSTORED=$kept PCIDEVS_LIVES=${PCIDEVS_LIVES:-1000} cargo test --release --features xen --test xen
}
