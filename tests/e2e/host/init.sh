#!/bin/busybox sh
# The first process of the guest: what the tests need of a system, the tests, and the end.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ RUST_BACKTRACE=0
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /tmp
mkdir -p /run
exec </dev/null >/dev/ttyS0 2>&1
echo "== kernel $(uname -r)"
# Not vfio-pci: the manager loads that.
for module in vfio_iommu_type1 e1000 e1000e igb nvme pci-stub; do
    modprobe "$module" || echo "== no module $module"
done
# Drivers probe on their own threads.
sleep 1
/bin/sh /checks.sh
echo "== end $?"
poweroff -f
