# What a server holds, one line for each key: database, type, expiry (-1 or Unix ms), digest, name.
#
#   tclsh scripts/redis-suite.keys.tcl SUITE_DIR HOST PORT
#
# DEBUG DIGEST-VALUE is blind to a stream's last id and to its groups: those are part of the digest column.
# Not shown, since Redis does not tell its replicas: delivery counts and times of pending entries, idle
# times of consumers, consumers without pending entries. Function libraries come first.
set dir [lindex $argv 0]
source $dir/tests/support/util.tcl
source $dir/tests/support/redis.tcl
set ::tlsdir $dir/tests/tls
set r [redis [lindex $argv 1] [lindex $argv 2]]

proc shown {name} {
    if {[regexp {^[!-\[\]-~]*$} $name]} { return $name }
    set out ""
    foreach c [split $name {}] {
        scan $c %c code
        append out [expr {$code > 32 && $code < 127 && $c ne "\\" ? $c : [format {\x%02x} $code]}]
    }
    return $out
}

# The fields of a flat list that are the same on a primary and on its replicas.
proc chosen {flat wanted} {
    set out {}
    foreach {field value} $flat {
        if {$field in $wanted} { lappend out "$field=[shown $value]" }
    }
    return [join $out ,]
}

foreach library [lsort [$r function list withcode]] {
    puts "functions\tlibrary\t-1\t[shown [dict get $library library_code]]\t[shown [dict get $library library_name]]"
}
foreach line [split [$r info keyspace] "\n"] {
    if {![regexp {^db([0-9]+):} $line - db]} continue
    $r select $db
    set names [lsort -unique [$r keys *]]
    for {set from 0} {$from < [llength $names]} {incr from 200} {
        set some [lrange $names $from $from+199]
        $r deferred 1
        foreach name $some { $r type $name; $r pexpiretime $name }
        $r debug digest-value {*}$some
        set facts {}
        foreach name $some { lappend facts $name [$r read] [$r read] }
        set digests [$r read]
        $r deferred 0
        foreach {name type expiry} $facts digest $digests {
            if {$type eq "none"} continue
            if {$type eq "stream" && ![catch {$r xinfo stream $name} info]} {
                append digest "," [chosen $info {length last-generated-id max-deleted-entry-id entries-added groups}]
                foreach group [$r xinfo groups $name] {
                    append digest ";" [chosen $group {name pending last-delivered-id entries-read}]
                }
            }
            puts "$db\t$type\t$expiry\t$digest\t[shown $name]"
        }
    }
}
