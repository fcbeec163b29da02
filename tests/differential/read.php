<?php
// Reads Cookie headers as PHP fills $_COOKIE: one a line in hex, one line of JSON each, {"php": [["name", "value"], ...]} with
// the strings in hex. Run by the command line it is a FastCGI client of a php-cgi that it starts, for the command line itself
// fills no $_COOKIE; php-cgi runs this very file for each header.
if (PHP_SAPI !== 'cli') {
    $pairs = [];
    $add = function (string $name, $value) use (&$add, &$pairs): void {
        if (is_array($value)) {
            foreach ($value as $inner) {
                $add($name, $inner);
            }
        } else {
            $pairs[] = [bin2hex($name), bin2hex($value)];
        }
    };
    foreach ($_COOKIE as $name => $value) {
        $add((string) $name, $value);
    }
    exit(json_encode(['php' => $pairs]));
}

function record(int $type, string $content): string
{
    return pack('CCnnCC', 1, $type, 1, strlen($content), 0, 0) . $content;
}

function parameter(string $name, string $value): string
{
    $length = fn (string $text) => strlen($text) < 128 ? chr(strlen($text)) : pack('N', strlen($text) | 0x80000000);
    return $length($name) . $length($value) . $name . $value;
}

function request(string $cookie): string
{
    $parameters = parameter('SCRIPT_FILENAME', __FILE__) . parameter('REQUEST_METHOD', 'GET')
        . parameter('REDIRECT_STATUS', '200') . parameter('HTTP_COOKIE', $cookie);
    // Begin as responder with the connection kept; the parameters in records of 64 KB at most; no body.
    $out = record(1, pack('nCx5', 1, 1));
    foreach (str_split($parameters, 65535) as $part) {
        $out .= record(4, $part);
    }
    return $out . record(4, '') . record(5, '');
}

function read_exactly($socket, int $length): string
{
    $read = '';
    while (strlen($read) < $length) {
        $part = fread($socket, $length - strlen($read));
        if ($part === false || $part === '') {
            fwrite(STDERR, "php-cgi closed the connection\n");
            exit(1);
        }
        $read .= $part;
    }
    return $read;
}

function answer($socket): string
{
    $output = '';
    do {
        ['type' => $type, 'length' => $length, 'padding' => $padding] =
            unpack('Cversion/Ctype/nid/nlength/Cpadding/Creserved', read_exactly($socket, 8));
        $content = substr(read_exactly($socket, $length + $padding), 0, $length);
        $output .= $type === 6 ? $content : '';
    } while ($type !== 3);
    return explode("\r\n\r\n", $output, 2)[1];
}

/** Starts a php-cgi and connects to it: the process, its socket and the connection. */
function start(int $number): array
{
    $path = sys_get_temp_dir() . '/tenure-php-' . getmypid() . "-$number.sock";
    // The defaults of PHP itself, not those of the machine's php.ini; and no request is the last.
    $command = ['php-cgi', '-n', '-d', 'zend_extension=opcache', '-d', 'display_errors=0', '-d', 'log_errors=0', '-b', $path];
    $environment = ['PHP_FCGI_MAX_REQUESTS' => '0', 'PHP_FCGI_CHILDREN' => '0', 'PATH' => getenv('PATH')];
    $process = proc_open($command, [['file', '/dev/null', 'r']], $pipes, null, $environment);
    for ($tries = 0; !($socket = @stream_socket_client("unix://$path")); $tries++) {
        if ($tries > 500) {
            fwrite(STDERR, "php-cgi does not answer\n");
            exit(1);
        }
        usleep(10000);
    }
    return [$process, $path, $socket];
}

// Several at once, because a request is mostly waiting for the other process to be scheduled.
$servers = array_map('start', range(1, 4));
do {
    $asked = [];
    foreach ($servers as [, , $socket]) {
        if (($line = fgets(STDIN)) !== false) {
            fwrite($socket, request(hex2bin(trim($line))));
            $asked[] = $socket;
        }
    }
    foreach ($asked as $socket) {
        echo answer($socket), "\n";
    }
} while ($asked);
foreach ($servers as [$process, $path, $socket]) {
    fclose($socket);
    // Not politely: a php-cgi waits first for its connection to close, which those started after it hold too.
    proc_terminate($process, 9);
    proc_close($process);
    unlink($path);
}
