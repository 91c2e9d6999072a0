#!/bin/sh
# The first process of the machine: makes a root of the files of the host and a layer in memory; enters it.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module || [ -n "$module" ]; do insmod "/modules/$module"; done < /modules/order

share() { mount -t 9p -o "$1,trans=virtio,version=9p2000.L,msize=1048576" "$2" "$3"; }

share ro,cache=loose host /lower &&
    mount -t tmpfs -o mode=755,size=75% layers /layers &&
    mkdir /layers/upper /layers/work &&
    mount -t overlay -o lowerdir=/lower,upperdir=/layers/upper,workdir=/layers/work overlay /new &&
    mkdir -p /new/run /new/proc /new/sys /new/dev &&
    mount -t tmpfs -o mode=755 run /new/run &&
    mkdir /new/run/task &&
    share rw task /new/run/task || poweroff -f
for name in proc sys dev; do mount --move "/$name" "/new/$name"; done
exec switch_root /new /bin/sh /run/task/boot
