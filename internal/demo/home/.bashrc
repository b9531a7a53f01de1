PS1='\[\e[1;34m\]\w\[\e[0m\] $ '
alias ls='ls --color=auto' 2>/dev/null
