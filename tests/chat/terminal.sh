#!/bin/sh
# Drives a chat in a real terminal, with tmux: PROGRAM DRIVER.
set -e
program=$1
export VK_DRIVER_FILES="$2"
name=peridot-test-$$
tmux -L "$name" -f /dev/null new-session -d -x 100 -y 40 "$program chat --temperature 0"
trap 'tmux -L "$name" kill-server 2>/dev/null || true' EXIT

# waits until a line of the screen matches, half a minute at most
wait_for() {
    for _ in $(seq 150); do
        tmux -L "$name" capture-pane -p | grep -q -- "$1" && return 0
        sleep 0.2
    done
    echo "never saw: $1"
    tmux -L "$name" capture-pane -p
    return 1
}

say() {
    tmux -L "$name" send-keys -l "$1"
    tmux -L "$name" send-keys Enter
}

wait_for 'built-in demo model'
say 'My name is Ana.'
wait_for 'Ana!'
say 'What is my name?'
wait_for 'Your name is Ana\.'
say '/undo'
wait_for 'the last turn is forgotten'
say '/stats'
wait_for 'statistics on'
say 'What is 3 + 4?'
wait_for '= 7\.'
wait_for 'tokens/s'
# history and editing: the last line again, its end changed
tmux -L "$name" send-keys Up BSpace BSpace
say '5?'
wait_for '3 + 5 = 8\.'
# Ctrl-C during an answer stops that answer alone: one that would fill the context, so that only Ctrl-C
# ends it within the half minute
say '/set min-tokens 8000'
say 'What is 2 + 2?'
wait_for '= 4'
tmux -L "$name" send-keys C-c
wait_for '\[stopped\]'
say '/set min-tokens 0'
say 'What is 2 + 6?'
wait_for '2 + 6 = 8\.'
# Ctrl-C at the prompt leaves
tmux -L "$name" send-keys C-c
for _ in $(seq 50); do
    tmux -L "$name" has-session 2>/dev/null || exit 0
    sleep 0.2
done
echo "Ctrl-C at the prompt did not leave"
tmux -L "$name" capture-pane -p
exit 1
