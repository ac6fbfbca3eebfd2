//! The playbooks of the test, and runs in which nothing goes wrong.

use crate::cloud::Cloud;
use crate::start;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Idempotent; it needs the other hosts' variables.
const SITE: &str = "- hosts: all
  gather_facts: false
  roles:
    - demo
";
const ROLE: &str = "- name: Make a folder
  ansible.builtin.file:
    path: /etc/demo
    state: directory
    mode: '0755'
- name: Write the peers
  ansible.builtin.template:
    src: peers.j2
    dest: /etc/demo/peers
    mode: '0644'
- name: Add a line
  ansible.builtin.lineinfile:
    path: /etc/demo/lines
    line: one
    create: true
    mode: '0644'
";
const PEERS: &str = "{% for host in groups['all'] | sort %}{{ host }} {{ hostvars[host].instance_id }}\n{% endfor %}";

/// Counts itself, and waits for a file.
const SLOW: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Count
      ansible.builtin.shell: echo x >> /root/count
    - name: Wait
      ansible.builtin.shell: until [ -e /run/go ]; do sleep 0.1; done
    - name: Go on
      ansible.builtin.command: 'true'
";

/// Fills the disk.
const FILL: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Take all room
      ansible.builtin.shell: cat /dev/zero > /root/rest
";

/// What the kernel does when memory is short: to Ansible itself, or to what the agent started.
const KILLED: &str = "- hosts: all
  gather_facts: false
  tasks:
    - name: Take all memory
      ansible.builtin.command: pkill -KILL -o -f {{ victim }}
";

/// Writes the Ansible folder.
pub(crate) fn write(folder: &Path) {
    let put = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("playbooks/site.yml", SITE);
    put("roles/demo/tasks/main.yml", ROLE);
    put("roles/demo/templates/peers.j2", PEERS);
    put("playbooks/slow.yml", SLOW);
    put("playbooks/killed.yml", KILLED);
    put("playbooks/fill.yml", FILL);
    let mut steps = "- hosts: all\n  gather_facts: false\n  tasks:\n".to_owned();
    for number in 1..=40 {
        write!(steps, "    - name: Step {number}\n      ansible.builtin.command: sleep 1\n")
            .unwrap();
    }
    put("playbooks/steps.yml", &steps);
}

/// One of them has a clock that is four minutes ahead.
pub(crate) fn a_play_runs_and_a_second_run_changes_nothing(cloud: &Cloud, hosts: &[&str]) {
    let ended = start(cloud, "site", hosts, "site.yml", &[]).ended();
    assert_eq!(ended.code, 0, "{ended}");
    let mut peers: Vec<String> =
        hosts.iter().map(|host| format!("{host} {}\n", cloud.id(host))).collect();
    peers.sort();
    for host in hosts {
        assert!(ended.summary.contains(host), "{}", ended.summary);
        assert_eq!(ended.host(host)["data"]["changed"], 3, "{ended}");
        assert_eq!(cloud.exec(host, "cat /etc/demo/peers"), peers.concat());
    }
    let ended = start(cloud, "site-again", hosts, "site.yml", &[]).ended();
    assert_eq!(ended.code, 0, "{ended}");
    for host in hosts {
        let data = &ended.host(host)["data"];
        assert_eq!((&data["ok"], &data["changed"]), (&3.into(), &0.into()), "{ended}");
        // Nothing private stays.
        let left = cloud.exec(
            host,
            "ls -d /var/lib/ssm-run-playbook/runs/*/private /var/lib/ssm-run-playbook/runs/*/work",
        );
        assert_eq!(left, "", "{host}");
    }
    cloud.say("a play runs, and changes nothing the second time");
}
