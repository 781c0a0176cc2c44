<?php
// Healthy work for composer: writes the composer.json of a project that wants three
// of 500 packages, each of 60 versions, which need three others each. Takes seconds.
mt_srand(1);
$packages = [];
for ($p = 0; $p < 500; $p++) {
    for ($v = 1; $v <= 60; $v++) {
        $need = [];
        for ($n = 0; $n < 3 && $p > 0; $n++) {
            $need['acme/p' . mt_rand(0, $p - 1)] = '>=' . mt_rand(1, 30);
        }
        $packages[] = ['name' => "acme/p$p", 'version' => "$v.0.0", 'type' => 'metapackage', 'require' => (object) $need];
    }
}
file_put_contents('composer.json', json_encode([
    'require' => ['acme/p499' => '*', 'acme/p498' => '*', 'acme/p497' => '*'],
    'repositories' => [['packagist' => false], ['type' => 'package', 'package' => $packages]],
]));
