#!/bin/busybox sh
# The first process of domain 0: what Xen's tools need of a system, the checks, and the end.
/bin/busybox --install -s /bin
export PATH=/xen/bin:/bin HOME=/ XENSTORED_ROOTDIR=/var/lib/xenstored
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts none /dev/pts
mount -t tmpfs none /run
mount -t tmpfs none /tmp
mkdir -p /run/xen /run/xenstored /run/lock
ln -s /run/lock /var/lock
exec </dev/null >/dev/hvc0 2>&1
echo "== domain 0: Linux $(uname -r) on $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)"
for module in xen-evtchn xen-privcmd xen-gntdev xen-gntalloc xenfs xen-pciback e1000e igb; do
    modprobe "$module" || echo "== no module $module"
done
mount -t xenfs none /proc/xen
xenstored --pid-file /run/xen/xenstored.pid && xen-init-dom0 &&
    xenconsoled --log=guest --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid ||
    echo "== Xen's daemons do not start"
/bin/sh /checks.sh
echo "== end $?"
poweroff -f
