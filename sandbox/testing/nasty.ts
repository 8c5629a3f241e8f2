/** A shell script that starts what is hard to get rid of, says "ready", and waits. */
export const NASTY_TREE = `
setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 1; done' &
(setsid nohup sleep 1000 >/dev/null 2>&1 &)
sh -c 'trap "" TERM; sleep 1000; sleep 1000' &
sleep 1000 & kill -STOP $!
setsid sh -c 'kill -STOP $$; sleep 1000' &
(sleep 1000 & exec sh -c 'exit 0')
echo ready
trap '' TERM
while :; do sleep 1; done
`;
