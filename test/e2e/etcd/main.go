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
	cert := flag.String("cert", "", "the PEM file of the server's certificate; without one it speaks plain text")
	key := flag.String("key", "", "the PEM file of the certificate's key")
	clientCA := flag.String("client-ca", "", "the PEM file of the roots to which every client's certificate must lead")
	flag.Parse()
	client := url.URL{Scheme: "http", Host: *listen}
	c := embed.NewConfig()
	if *cert != "" {
		client.Scheme = "https"
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = *cert, *key
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = *clientCA, *clientCA != ""
	}
	c.Dir = *dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls = nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.LogLevel = "error"
	e, err := embed.StartEtcd(c)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(<-e.Err())
}
