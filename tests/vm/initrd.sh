#!/bin/busybox sh
# PID 1 of the initrd: load what the root file system needs, mount it, hand over to its systemd. A reboot ends QEMU.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in virtio_pci virtio_blk crc32c_generic ext4; do
    modprobe $module
done
root=$(sed -n 's/.*\broot=\(\S*\).*/\1/p' /proc/cmdline)
if ! mount -o rw "$root" /root; then
    echo "initrd: there is no root file system on $root" >/dev/console
    sleep 0.2
    reboot -f
fi
mount -o rw /dev/vdb /root/srv
mount -o ro /dev/vdc /root/srv/venv
umount /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
