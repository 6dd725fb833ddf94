//! The table.

use crate::row::{By, Place, Row, args, row, script};

/// How `oncelet exec` tells of what the engine tells in its own way.
const NEVER_RAN: &str =
    "a program that could not be started is told with 127 where it is not there, else with 126, on stderr";
/// Why it does not take an option.
const NO_SUCH_OPTION: &str = "oncelet exec has no such option, and says so before anything is started";

/// All rows.
pub(crate) fn rows() -> Vec<Row> {
    [
        arguments(),
        scripts(),
        exit_codes(),
        outputs(),
        environment(),
        places(),
        containers(),
        not_started(),
        stdin(),
        process(),
        refused(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every argument arrives as it was written.
fn arguments() -> Vec<Row> {
    let long = "x".repeat(100_000);
    let many: Vec<String> = (0..900).map(|number| format!("argument-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    vec![
        row("plain_words", &["echo", "hello", "world"]),
        args("spaces_are_kept", &["a b", " c ", "   "]),
        args("empty_arguments_are_kept", &["", "a", ""]),
        args("quotes", &["'single'", "\"double\"", "it's", "`back`"]),
        args("a_dollar_is_a_dollar", &["$HOME", "${HOME}", "$1", "$", "a$"]),
        args("two_dollars_are_two", &["pa$$word", "$$", "$$$$", "DO $$ BEGIN END $$"]),
        args("a_dollar_and_parentheses", &["$(HOME)", "$(date)", "$()", "$(", "a$(B)c"]),
        args("an_escaped_dollar_and_parentheses", &["$$(HOME)", "$$$(HOME)", "$$$$(HOME)"]),
        args("templates_of_other_tools", &["{{ portFor \"db\" }}", "{{.Names}}", "${{ x }}"]),
        args("globs_are_not_expanded", &["*", "/bin/?h", "[a-z]*", "{a,b}", "~", "~root"]),
        args("backslashes", &["\\", "\\\\", "\\n", "C:\\dir\\file", "a\\ b"]),
        args("signs_of_a_shell", &["a;b", "a && b", "a | b", "> /tmp/x", "&", "#", "!", "!!"]),
        args("percent_signs", &["%s", "%%", "100%"]),
        args("unicode", &["grün", "日本語", "🦀", "e\u{301}", "\u{202e}rtl", "\u{feff}"]),
        args("newlines_and_tabs", &["a\nb", "\n", "tab\there", "cr\r", "a\n\n"]),
        args("arguments_like_options", &["-e", "--name", "-", "--", "-i", "--help"]),
        args("arguments_with_an_equals_sign", &["A=b", "--x=y", "=", "=="]),
        args("control_characters", &["\u{1}\u{7f}", "\u{1b}[31mred\u{1b}[0m"]),
        args("json", &["{\"a\": [1, \"two\", null], \"b\": \"$\"}"]),
        args("sql", &["INSERT INTO t VALUES ('O''Brien', E'\\n', $1, $tag$x$tag$);"]),
        row("a_long_argument", &["sh", "-c", "echo ${#1}", "sh", &long]),
        row("many_arguments", &[&["sh", "-c", "echo $#; echo \"$900\"", "sh"], &many[..]].concat()),
        row("options_of_the_program", &["ls", "-l", "-d", "--", "/bin/busybox"]).in_other_words(),
        row("a_program_by_its_path", &["/bin/echo", "by its path"]),
        row("a_program_by_a_relative_path", &["./script", "a", "b"]).with(&["-w", "/tmp"]),
        row("a_program_with_a_link", &["/bin/busybox", "echo", "applet"]),
    ]
}

fn scripts() -> Vec<Row> {
    vec![
        script("a_script_expands_globs_itself", "echo /bin/ech? /tmp/scri*"),
        script("a_script_has_the_containers_variables", "echo \"$OF_THE_CONTAINER\""),
        script("a_script_takes_the_pid_of_itself", "test $$ -gt 1 && echo yes"),
        script("a_script_substitutes_commands", "echo \"$(echo inner)\" `echo old`"),
        script("a_script_with_set_e_stops_at_a_failure", "set -e; echo before; false; echo after"),
        script("a_script_with_set_u", "set -u; echo $NOT_SET_AT_ALL").in_other_words(),
        script("a_script_with_a_heredoc", "cat <<END\nline one\n  two $((1 + 2))\nEND\ncat <<'END'\n$HOME\nEND\n"),
        script("a_script_of_several_lines", "echo one\n\n# a comment\necho two # another\n"),
        script("a_pipeline_has_the_code_of_its_last", "false | true"),
        script("a_pipeline_is_cut_without_a_complaint", "yes | head -n 2"),
        script("a_trap_on_exit", "trap 'echo bye' EXIT; exit 4"),
        script("arithmetic_and_conditions", "i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done"),
        row("arguments_of_a_script", &["sh", "-c", "echo \"$0\" \"$1\" \"$#\"", "name", "a b"]),
        row("a_script_with_a_first_line", &["/tmp/script", "a", "b c"]),
    ]
}

fn exit_codes() -> Vec<Row> {
    vec![
        row("exit_0", &["true"]),
        row("exit_1", &["false"]),
        script("exit_2", "exit 2"),
        script("exit_125", "exit 125"),
        script("exit_126", "exit 126"),
        script("exit_127", "exit 127"),
        script("exit_137", "exit 137"),
        script("exit_143", "exit 143"),
        script("exit_255", "exit 255"),
        script("exit_256_is_0", "exit 256"),
        script("a_command_that_a_shell_does_not_find", "nowhere-at-all").in_other_words(),
        script("killed_by_sigkill", "kill -KILL $$"),
        script("killed_by_sigterm", "kill -TERM $$"),
        script("killed_by_sigsegv", "kill -SEGV $$"),
        script("killed_by_sigpipe", "kill -PIPE $$"),
        script("sigint_that_is_caught", "trap 'echo caught; exit 9' INT; kill -INT $$; sleep 1"),
        script("a_child_that_was_killed", "sh -c 'kill -9 $$'; echo $?"),
    ]
}

fn outputs() -> Vec<Row> {
    vec![
        script("both_streams", "echo out; echo err >&2"),
        script("stderr_alone", "echo err >&2; exit 1"),
        script("nothing_at_all", ":"),
        script("no_newline_at_the_end", "printf 'no newline'; printf 'nor here' >&2"),
        script("an_empty_line", "echo; echo"),
        script("carriage_returns_and_colours", "printf 'a\\r\\nb\\033[1mbold\\033[0m\\n'"),
        script("every_byte", "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done"),
        script("nul_bytes", "printf 'a\\0b\\0\\0'; printf '\\0' >&2"),
        script("what_is_not_utf_8", "printf '\\377\\376\\300\\200'"),
        script("three_megabytes", "yes 0123456789abcdef | head -c 3000000"),
        script("a_long_line", "head -c 200000 /dev/zero | tr '\\0' x"),
        script(
            "many_short_lines_on_both",
            "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done",
        ),
        script("stdout_is_opened_again", "echo one >/dev/stdout; echo two >/dev/stdout; echo three >>/proc/self/fd/1"),
        script("stderr_is_opened_again", "echo one >/dev/stderr; echo two >/dev/stderr"),
        script("tee_to_stderr", "echo both | tee /dev/stderr"),
        script("stdout_that_is_closed", "exec >&-; echo lost 2>/dev/null; exit 5"),
        script("output_before_and_after_a_pause", "echo before; sleep 0.3; echo after"),
        script("a_background_child_that_says_nothing", "sleep 30 >/dev/null 2>&1 & echo started"),
        script("a_background_child_that_is_waited_for", "(sleep 0.2; echo child) & echo parent; wait"),
        script("what_a_child_writes_after_the_end", "(sleep 0.5; echo late) & echo early").differs(
            "the output of a run is what is written until its program ends; what its children write later is theirs",
            0,
            "early\n",
            "",
        ),
    ]
}

fn environment() -> Vec<Row> {
    let show =
        |name: &'static str, value: &str| script(name, "printf '[%s]' \"$A\"").with(&["-e", &format!("A={value}")]);
    vec![
        show("a_variable", "b"),
        show("an_empty_variable", ""),
        show("a_variable_with_spaces", " a  b "),
        show("a_variable_with_an_equals_sign", "a=b==c"),
        show("a_variable_with_quotes", "'single' \"double\""),
        show("a_variable_with_dollars", "$HOME $$ $$$ $(HOME) $$(HOME) ${A}"),
        show("a_variable_with_a_reference_to_itself", "$(A)"),
        show("a_variable_with_newlines", "a\nb\n"),
        show("a_variable_with_unicode", "grün 🦀"),
        show("a_variable_with_backslashes", "\\ \\n \\\\"),
        show("a_variable_like_an_option", "--env"),
        script("a_variable_in_the_long_form", "echo $A").with(&["--env", "A=long"]),
        script("several_variables", "echo $A $B").with(&["-e", "A=1", "-e", "B=2"]),
        script("one_variable_refers_to_another", "echo \"$B\"").with(&["-e", "A=1", "-e", "B=$(A)"]),
        script("a_variable_twice", "echo $A").with(&["-e", "A=1", "-e", "A=2"]),
        script("a_variable_of_the_container_is_hidden", "echo $OF_THE_CONTAINER").with(&["-e", "OF_THE_CONTAINER=mine"]),
        row("a_variable_with_an_odd_name", &["printenv", "a.b-c"]).with(&["-e", "a.b-c=1"]),
        row("a_variable_in_lower_case", &["printenv", "http_proxy"]).with(&["-e", "http_proxy=http://proxy:3128"]),
        script("a_path_is_searched", "echo \"$PATH\"; command -v sh").with(&["-e", "PATH=/nowhere:/bin"]),
        row("a_program_is_found_through_a_path_that_is_given", &["script", "a"]).with(&["-e", "PATH=/tmp:/bin"]),
        script("the_whole_environment", "env | sort"),
        script("home_is_that_of_the_user", "echo $HOME").with(&["-u", "app"]),
        script("a_variable_without_a_value", "echo $FROM_THE_CLIENT").with(&["-e", "FROM_THE_CLIENT"]).differs(
            "a variable that is taken from the client's environment would make the same command another program elsewhere",
            1,
            "",
            "NAME=VALUE",
        ),
    ]
}

fn places() -> Vec<Row> {
    let whoami = "id -u; id -g; id -G; echo $HOME";
    vec![
        row("the_containers_directory", &["pwd"]),
        row("a_directory", &["pwd"]).with(&["-w", "/tmp"]),
        row("a_directory_in_the_long_form", &["pwd"]).with(&["--workdir", "/home/app"]),
        row("a_directory_with_dots", &["pwd"]).with(&["-w", "/tmp/../home"]),
        script("the_containers_user", whoami),
        script("a_user_by_name", whoami).with(&["-u", "app"]),
        script("a_user_in_the_long_form", whoami).with(&["--user", "app"]),
        script("a_user_by_number", whoami).with(&["-u", "1000"]),
        script("a_user_and_a_group_by_number", whoami).with(&["-u", "1000:0"]),
        script("a_user_and_a_group_by_name", whoami).with(&["-u", "app:root"]),
        script("a_user_that_is_in_no_file", whoami).with(&["-u", "4242:4343"]),
        script("a_user_may_not_write_everywhere", "touch /etc/x").with(&["-u", "app"]).in_other_words(),
    ]
}

fn containers() -> Vec<Row> {
    let waits = |name, place, stderr| {
        row(name, &["true"]).at(place).with_ours(&["--timeout", "2s"]).differs(
            "a container that may come or start is waited for; after --timeout the request is withdrawn",
            125,
            "",
            stderr,
        )
    };
    vec![
        row("no_such_container", &["true"]).at(Place::Missing).differs("the words are ours", 1, "", "has no container"),
        waits("a_stopped_container", Place::Stopped, "has stopped"),
        waits("a_paused_container", Place::Paused, "is paused"),
        row("no_container_at_all", &["true"]).named_by(By::Nothing).differs(
            "the words are ours",
            1,
            "",
            "the container is empty",
        ),
        row("a_container_by_name", &["hostname"]).named_by(By::Name),
        row("a_container_by_id", &["hostname"]).named_by(By::Id),
        row("a_container_by_short_id", &["hostname"]).named_by(By::ShortId),
        row("a_container_by_a_prefix", &["hostname"]).named_by(By::Prefix),
    ]
}

/// The engine's words and codes differ from version to version: Docker 20.10 says 126 for all, later ones 127 for what is not there.
fn not_started() -> Vec<Row> {
    let no = |name, command: &[&str], code, stderr| row(name, command).differs(NEVER_RAN, code, "", stderr);
    vec![
        no("no_such_command", &["nowhere-at-all"], 127, "no such file"),
        no("no_such_path", &["/nowhere/at-all", "x"], 127, "no such file"),
        no("a_path_without_the_command", &["ls"], 127, "no such file").with(&["-e", "PATH=/nowhere"]),
        no("a_bad_interpreter", &["/tmp/bad-interpreter"], 127, "interpreter"),
        no("a_script_with_windows_newlines", &["/tmp/crlf"], 127, "interpreter"),
        no("a_file_that_is_not_executable", &["/tmp/not-executable"], 126, "permission denied"),
        no("a_directory_as_a_command", &["/tmp/directory"], 126, "permission denied"),
        no("a_directory_that_is_not_there", &["pwd"], 126, "").with(&["-w", "/nowhere"]),
        no("a_user_who_is_not_there", &["id"], 126, "nobody-of-this-name").with(&["-u", "nobody-of-this-name"]),
        row("an_empty_command", &[""]).differs("an object without a command is rejected", 1, "", "spec.command"),
        no("a_script_without_a_first_line", &["/tmp/no-shebang"], 126, "exec format error"),
    ]
}

fn stdin() -> Vec<Row> {
    let binary: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    vec![
        row("nothing_on_stdin", &["cat"]),
        script("stdin_is_at_its_end", "read line; echo $?"),
        row("a_pipe_with_i", &["cat"]).with(&["-i"]).piped("hello\n"),
        row("a_pipe_with_interactive", &["cat"]).with(&["--interactive"]).piped("no newline"),
        row("a_file_with_i", &["sort"]).with(&["-i"]).fed_from_file("b\na\n"),
        row("dev_null_with_i", &["cat"]).with(&["-i"]),
        row("an_empty_pipe_with_i", &["wc", "-c"]).with(&["-i"]).piped(""),
        row("binary_input", &["sha256sum"]).with(&["-i"]).piped(binary),
        row("nul_bytes_on_stdin", &["od", "-c"]).with(&["-i"]).piped("a\0b\0"),
        row("ten_megabytes_of_input", &["md5sum"]).with(&["-i"]).piped(vec![b'x'; 10_000_000]),
        row("input_that_the_program_ignores", &["true"]).with(&["-i"]).piped(vec![b'x'; 1_000_000]),
        row("input_of_which_the_program_reads_a_line", &["head", "-n", "1"]).with(&["-i"]).piped("one\ntwo\nthree\n".repeat(1000)),
        row("a_script_on_stdin", &["sh"]).with(&["-i"]).piped("echo from stdin\necho \"$$\" | wc -l\nexit 6\n"),
        row("a_script_on_stdin_with_arguments", &["sh", "-s", "a", "b c"]).with(&["-i"]).piped("echo $# \"$2\"\n"),
        row("input_to_both_streams", &["sh", "-c", "tee /dev/stderr | tr a-z A-Z"]).with(&["-i"]).piped("both\n"),
        row("input_with_a_variable_and_a_user", &["sh", "-c", "cat; echo $A; id -u"])
            .with(&["-i", "-e", "A=b", "-u", "app"])
            .piped("in\n"),
        row("a_pipe_without_i", &["cat"]).piped("lost with docker\n").differs(
            "what is piped in is refused rather than dropped: a program that got nothing would be remembered as the one that ran",
            125,
            "",
            "-i",
        ),
        row("an_empty_pipe_without_i", &["cat"]).piped(""),
    ]
}

fn process() -> Vec<Row> {
    vec![
        script("no_terminal", "for fd in 0 1 2; do test -t $fd; echo $?; done; tty"),
        script("limits", "ulimit -a"),
        script("umask_of_what_is_made", "umask; f=/tmp/umask-$$; touch $f; stat -c %a $f; rm $f"),
        // Without 32 and 33, which the C library keeps for itself.
        script(
            "signals_are_as_a_program_expects",
            "while read -r name mask; do case $name in SigIgn: | SigBlk:) echo $name $((0x$mask & 0x7fffffff)) ;; esac; done \
             </proc/self/status",
        ),
        script("no_descriptors_are_left_over", "ls /proc/self/fd"),
        script(
            "stdin_stdout_and_stderr_are_what_they_are_under_docker",
            "for fd in 0 1 2; do test -p /dev/fd/$fd; echo $?; done",
        ),
        script("capabilities", "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status"),
        script("groups_and_ids", "grep -E '^(Uid|Gid|Groups)' /proc/self/status"),
        script("priority", "cut -d' ' -f18,19 /proc/self/stat; cat /proc/self/oom_score_adj"),
        script(
            "namespaces",
            "for n in pid net mnt ipc uts; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n); echo $?; done",
        ),
        script("the_command_line", "tr '\\0' ' ' </proc/$$/cmdline"),
        script("a_group_of_its_own", "kill -0 -$$ && echo leads its group"),
        script("signals_to_the_group_end_the_program", "sleep 30 & kill -TERM 0"),
        script("memory_is_shared", "test -d /dev/shm; echo $?; test -c /dev/null; echo $?"),
    ]
}

/// What `oncelet exec` does not take.
fn refused() -> Vec<Row> {
    let no_terminal = |name, options: &[&str]| {
        row(name, &["true"]).with(options).differs("what is typed into a terminal cannot be recorded", 125, "", "--tty")
    };
    let no = |name, options: &[&str]| {
        row(name, &["true"]).with(options).differs(NO_SUCH_OPTION, 2, "", "unexpected argument")
    };
    vec![
        no_terminal("a_terminal", &["-t"]),
        no_terminal("a_terminal_and_stdin", &["-it"]),
        no("detached", &["--detach"]),
        no("privileged", &["--privileged"]),
        no("an_env_file", &["--env-file", "/dev/null"]),
        no("detach_keys", &["--detach-keys", "ctrl-a"]),
    ]
}
