<?php
// Lays out a wiki of its own in the directory of DOKU_PLACE: two people, and pages that nobody else may read.
$place = getenv('DOKU_PLACE');
foreach (['pages', 'attic', 'media', 'media_attic', 'media_meta', 'meta', 'cache', 'index', 'locks', 'tmp', 'log'] as $name) {
    mkdir("$place/data/$name", 0700, true);
}
mkdir("$place/conf", 0700);
foreach (glob('/etc/dokuwiki/*') as $file) {
    if (is_file($file) && is_readable($file)) copy($file, "$place/conf/" . basename($file));
}
$people = '';
foreach (['ann', 'bob'] as $name) {
    $people .= "$name:" . password_hash("$name-secret", PASSWORD_BCRYPT) . ":$name:$name@localhost:user\n";
}
file_put_contents("$place/conf/users.auth.php", $people);
file_put_contents("$place/conf/acl.auth.php", "* @ALL 0\n* @user 8\n");
file_put_contents("$place/conf/local.php", "<?php
\$conf['title'] = 'Wiki';
\$conf['savedir'] = '$place/data';
\$conf['useacl'] = 1;
\$conf['superuser'] = '@admin';
\$conf['disableactions'] = 'register,resendpwd,profile';
\$conf['userewrite'] = 2;
\$conf['securecookie'] = 0;
\$conf['passcrypt'] = 'bcrypt';
\$conf['updatecheck'] = 0;
");
file_put_contents("$place/data/pages/start.txt", "Welcome.\n");
