<?php
// Debian's wiki takes its configuration from the system's directory, unless it is told otherwise before it starts.
define('DOKU_CONF', getenv('DOKU_PLACE') . '/conf/');
