#!/bin/sh
# Counts the seconds that it is awake. Ctrl+C ends it.
n=0
while sleep 1; do
  n=$((n + 1))
  echo "$(date +%H:%M:%S)  awake for $n seconds"
done
