#!/usr/bin/env node
'use strict'
require('./start.cjs')([].concat(process.argv.slice(2)))
