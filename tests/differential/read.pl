# Reads Cookie headers as CGI.pm does: one a line in hex, one line of JSON each, {"CGI.pm": [["name", "value"], ...]} with the
# strings in hex.
use strict;
use warnings;
use CGI::Cookie;

while (my $line = <STDIN>) {
    chomp $line;
    my $cookies = CGI::Cookie->parse(pack 'H*', $line);
    my @pairs;
    for my $name (keys %$cookies) {
        push @pairs, map { sprintf '["%s","%s"]', unpack('H*', $name), unpack('H*', $_ // '') } $cookies->{$name}->value;
    }
    print '{"CGI.pm":[', join(',', @pairs), "]}\n";
}
