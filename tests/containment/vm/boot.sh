# PID 1 on the real root of the machine: mounts file systems as an init does, runs one command, powers off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
ln -s /proc/self/fd /dev/fd
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in cpu memory pids; do echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; done
ip link set lo up
stty -F /dev/ttyS0 -onlcr
cd "$(cat /run/task/directory)" || exit 1
bash -c 'mapfile -d "" -t arguments < /run/task/command; exec "${arguments[@]}"' < /dev/null > /dev/ttyS0 2>&1
echo $? > /run/task/status
sync
echo o > /proc/sysrq-trigger
while :; do read -r _ < /dev/ttyS0 || :; done
