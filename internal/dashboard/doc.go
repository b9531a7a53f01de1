// Package dashboard holds what people look at: the dashboard, and the badge
// that a product can show in its own pages.
//
// It only serves files. All that they show comes from Sandman's API, which the
// browser asks with the visitor's own token, so this package knows no sandbox
// and can give nothing away. The files are what is edited: there is no build
// step, and third-party files are brought by vendor.sh.
//
//	web/index.html   the page; its scripts are modules
//	web/js/main.js   sign-in, routes, the frame around the pages
//	web/js/live.js   all sandboxes, kept as they are by the events stream
//	web/js/pages/    one file for each page
//	web/badge.js     <sandman-badge>, one file that needs no other
package dashboard
