// Command sandman is Caddy with its standard modules and Sandman's.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/sandman-proxy/sandman/caddymodule"
)

func main() {
	caddycmd.Main()
}
