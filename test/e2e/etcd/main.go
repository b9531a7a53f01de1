// Command etcd is a store of one member for the tests of clusters: etcd's own server, which can't be
// installed by `go install`.
package main

import (
	"flag"
	"log"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	dir := flag.String("dir", "", "the data folder")
	listen := flag.String("listen", "", "host:port for clients")
	flag.Parse()
	client, err := url.Parse("http://" + *listen)
	if err != nil {
		log.Fatal(err)
	}
	c := embed.NewConfig()
	c.Dir = *dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	c.ListenPeerUrls = nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.LogLevel = "error"
	e, err := embed.StartEtcd(c)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(<-e.Err())
}
