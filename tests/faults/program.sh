# The program of the drill's command runs.  It notes in its own files: its start (attempt, pid, GPU), whether
# another process of its run or on its GPU was still alive then, and how it will end.
#   $1 directory for notes   $2 seconds   $3 how to end: a code, or a signal's name
ulimit -S -f unlimited # a shim with a file size limit passes the limit on
notes=$1/$MOSAIC_RUN_ID
alive() {
    [ -r "/proc/$1/environ" ] && tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | grep -q "^MOSAIC_RUN_ID=$2\$"
}
if [ -e "$notes" ]; then
    while read -r word attempt pid rest; do
        [ "$word" = started ] && alive "$pid" "$MOSAIC_RUN_ID" && echo "overlap $attempt $pid" >>"$notes"
    done <"$notes"
fi
for gpu in $(echo "$CUDA_VISIBLE_DEVICES" | tr , ' '); do
    if read -r pid run <"$1/gpu$gpu" 2>/dev/null && [ "$run" != "$MOSAIC_RUN_ID" ] && alive "$pid" "$run"; then
        echo "shared $gpu $run" >>"$notes"
    fi
    echo "$$ $MOSAIC_RUN_ID" >"$1/gpu$gpu"
done
echo "started $MOSAIC_ATTEMPT $$ $CUDA_VISIBLE_DEVICES" >>"$notes"
[ "$2" = 0 ] || sleep "$2"
echo "ending $MOSAIC_ATTEMPT $3" >>"$notes"
case $3 in
[0-9]*) exit "$3" ;;
*) kill -s "$3" $$ ;;
esac
