from aiida.orm import CalcJobNode, Log

from aiida_oodal.calculations.job.progress import report_progress


def test_the_last_line_of_a_job_is_reported_once(localhost, tmp_path):
    folder = tmp_path / "with a ' in it"
    folder.mkdir()
    job = CalcJobNode(computer=localhost)
    job.set_process_label('LatentsCalculation')
    job.set_option('output_filename', 'engine.out')
    job.set_remote_workdir(str(folder))
    job.store()

    def reported():
        return [log.message for log in Log.collection.get_logs_for(job)]

    with localhost.get_transport() as transport:
        report_progress(job, transport)  # there is no file yet
        assert reported() == []
        (folder / 'engine.out').write_text('begun\n10 structures, 50.0 %\n')
        report_progress(job, transport)
        report_progress(job, transport)
        assert reported() == [f'LatentsCalculation<{job.pk}>: 10 structures, 50.0 %']
        with (folder / 'engine.out').open('a') as output:
            output.write('20 structures, 100.0 %\n')
        report_progress(job, transport)
        with (folder / 'engine.out').open('ab') as output:
            output.write(b'\xff\x00 30 structures\n')  # as a node that crashes may leave it
        report_progress(job, transport)
    assert reported().pop(2) == f'LatentsCalculation<{job.pk}>: 30 structures'
    assert reported()[1:2] == [f'LatentsCalculation<{job.pk}>: 20 structures, 100.0 %']
