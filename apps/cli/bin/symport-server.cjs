#!/usr/bin/env node
'use strict'
require('./start.cjs')(['server'].concat(process.argv.slice(2)))
