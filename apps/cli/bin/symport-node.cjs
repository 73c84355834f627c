#!/usr/bin/env node
'use strict'
require('./start.cjs')(['node'].concat(process.argv.slice(2)))
