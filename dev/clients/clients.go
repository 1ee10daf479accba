// Package clients holds what drives ChatApp's API from outside Go: scripts for Node, and the exact versions of the packages
// from npm that they use. Package npm installs the packages and runs the scripts.
//
// A script is an ES module beside this file. It may import the packages of package.json, and other scripts.
//
// To add a package or change a version, run in this folder
//
//	npm install --package-lock-only --ignore-scripts --save-exact PACKAGE@VERSION
package clients

import "embed"

// Files are package.json, package-lock.json and the scripts.
//
//go:embed package.json package-lock.json *.mjs
var Files embed.FS
